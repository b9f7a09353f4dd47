//! The tensors of safetensors files, one or several shards, without their elements.

use super::ConvertError;
use super::tensors::{Element, Tensor, TensorFile};
use safetensors::Dtype;
use safetensors::tensor::Metadata;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest header that is read; the format's own limit.
const MAX_HEADER: usize = 100_000_000;

fn element(dtype: Dtype) -> Element {
    match dtype {
        Dtype::F32 => Element::F32,
        Dtype::F64 => Element::F64,
        Dtype::F16 => Element::F16,
        Dtype::BF16 => Element::BF16,
        other => Element::Other(other.bitsize().div_ceil(8)),
    }
}

/// The tensors of the file at `path`, by name.
///
/// # Errors
/// Where it cannot be read or is no safetensors file.
pub fn tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, ConvertError> {
    let file = TensorFile::open(path)?;
    let damaged = |reason: String| ConvertError::damaged(path, reason);
    let length = file.read(0, 8)?;
    let length = <[u8; 8]>::try_from(length.as_slice())
        .ok()
        .and_then(|bytes| usize::try_from(u64::from_le_bytes(bytes)).ok())
        .filter(|&n| n <= MAX_HEADER)
        .ok_or_else(|| damaged("its header has an impossible length".into()))?;
    let header = file.read(8, length)?;
    let metadata: Metadata = serde_json::from_slice(&header)
        .map_err(|e| damaged(format!("its header cannot be read: {e}")))?;
    let start = 8 + length as u64;
    let end = file.len() - start;
    metadata
        .tensors()
        .into_iter()
        .map(|(name, info)| {
            let (from, to) = info.data_offsets;
            let element = element(info.dtype);
            let count = info
                .shape
                .iter()
                .try_fold(1usize, |n, &d| n.checked_mul(d))
                .and_then(|n| n.checked_mul(element.size()));
            if from > to || to as u64 > end || (element.is_float() && count != Some(to - from)) {
                return Err(damaged(format!(
                    "'{name}' does not lie within it, or not in its size"
                )));
            }
            let tensor = Tensor {
                file: file.clone(),
                offset: start + from as u64,
                element,
                shape: info.shape.clone(),
                strides: None,
            };
            Ok((name, tensor))
        })
        .collect()
}
