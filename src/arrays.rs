//! Named f32 arrays in safetensors files, for native checkpoints and HuggingFace folders alike.

use mpnet_runtime::engine::NamedArray;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// An array as safetensors sees it.
struct Array<'a>(&'a NamedArray);

impl View for Array<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        &self.0.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Owned(self.0.values.iter().flat_map(|v| v.to_le_bytes()).collect())
    }

    fn data_len(&self) -> usize {
        4 * self.0.values.len()
    }
}

/// Writes arrays under the names beside them, one array at a time in memory.
///
/// # Errors
/// Where the file cannot be written.
pub fn write_safetensors<'a>(
    path: &Path,
    arrays: impl IntoIterator<Item = (String, &'a NamedArray)>,
    metadata: Option<HashMap<String, String>>,
) -> io::Result<()> {
    let views = arrays.into_iter().map(|(name, array)| (name, Array(array)));
    // The crate's file is its owner's alone: it gets the permissions that a new file has here.
    let permissions = File::create(path)?.metadata()?.permissions();
    safetensors::serialize_to_file(views, metadata, path).map_err(|e| match e {
        SafeTensorError::IoError(e) => e,
        e => io::Error::other(e),
    })?;
    fs::set_permissions(path, permissions)
}

/// A tensor that is about to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
}

impl Planned {
    /// Its size in the file.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.bitsize() / 8
    }
}

/// Writes `tensors`, which are of one type and in the order of their names, asking `fill` for the bytes
/// of each by its index: no more than one of them is in memory.
///
/// # Errors
/// Where the file cannot be written, or `fill` fails.
pub fn stream_safetensors<E: From<io::Error>>(
    path: &Path,
    tensors: &[Planned],
    metadata: HashMap<String, String>,
    mut fill: impl FnMut(usize) -> Result<Vec<u8>, E>,
) -> Result<(), E> {
    let mut end = 0;
    let mut infos = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        let start = end;
        end += tensor.bytes();
        let info = TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        infos.push((tensor.name.clone(), info));
    }
    let header = Metadata::new(Some(metadata), infos).map_err(io::Error::other)?;
    let mut header = serde_json::to_vec(&header).map_err(io::Error::other)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    for (index, tensor) in tensors.iter().enumerate() {
        let bytes = fill(index)?;
        if bytes.len() != tensor.bytes() {
            let reason = format!("{} bytes for '{}'", bytes.len(), tensor.name);
            return Err(io::Error::other(reason).into());
        }
        file.write_all(&bytes)?;
    }
    file.flush()?;
    Ok(())
}
