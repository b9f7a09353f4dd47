//! Finds, fetches and loads a build of ONNX Runtime: a plain library or a training wheel, with no Python in the process.

mod elf;
mod error;
mod load;
mod python_symbols;

use std::path::PathBuf;

pub use error::{LibraryError, Result};
pub use load::Loaded;

/// A build of ONNX Runtime on this machine, not loaded yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The library file or the training wheel's extension.
    pub path: PathBuf,
}

/// Loads `build` into this process. Only one build can ever be loaded; asking for it again returns it.
///
/// # Errors
/// The file is no usable ONNX Runtime, or another one is loaded already.
pub fn load(build: &Build) -> Result<Loaded> {
    load::load_file(&build.path)
}
