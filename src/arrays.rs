//! Named f32 arrays in safetensors files, for native checkpoints and HuggingFace folders alike.

use mpnet_runtime::engine::NamedArray;
use safetensors::SafeTensorError;
use safetensors::tensor::{Dtype, View};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
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
