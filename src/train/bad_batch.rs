//! The batches of an update that gave no finite numbers, saved for inspection.

use super::feed::AnyBatch;
use crate::launch::Share;
use crate::staging::replace_file;
use anyhow::{Context, Result};
use mpnet_runtime::engine::TensorData;
use safetensors::tensor::{Dtype, TensorView};
use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Writes this rank's micro-batches of update `step` to `dir/skipped-batch-<step>.safetensors`, or, where there are
/// several ranks, to `-rank-<rank>.safetensors`: each input as `micro_batch.<index>.<name>`, 64-bit integers, with
/// `figures` as metadata.
///
/// # Errors
/// Where the file cannot be written.
pub fn save(
    dir: &Path,
    step: u64,
    share: Share,
    batches: &[(usize, AnyBatch)],
    figures: &str,
) -> Result<PathBuf> {
    let rank = match share.world {
        1 => String::new(),
        _ => format!("-rank-{}", share.rank),
    };
    let path = dir.join(format!("skipped-batch-{step}{rank}.safetensors"));
    let mut arrays = Vec::new();
    for (index, batch) in batches {
        for tensor in batch.inputs() {
            if let TensorData::I64(values) = tensor.data {
                let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
                let name = format!("micro_batch.{index}.{}", tensor.name);
                arrays.push((name, tensor.shape, bytes));
            }
        }
    }
    let views = arrays
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::I64, shape.clone(), bytes)?;
            Ok((name, view))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .context("encoding the batch")?;
    let metadata = HashMap::from([
        ("update".to_owned(), step.to_string()),
        ("figures".to_owned(), figures.to_owned()),
    ]);
    let bytes = safetensors::serialize(views, Some(metadata)).context("encoding the batch")?;
    replace_file(&path, |file| file.write_all(&bytes))
        .with_context(|| format!("writing {}", path.display()))?;
    Ok(path)
}
