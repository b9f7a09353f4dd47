//! PyTorch files without PyTorch: the pickle in them is read as data by an allow-list, and nothing
//! in it is ever called. `save` writes such files.

mod class;
mod directory;
mod legacy;
mod machine;
mod opcode;
mod save;
mod state;
mod storage;
mod value;
mod zip;

pub use save::{Object, save};
pub use state::{Entry, PyTorchFile};

use super::ConvertError;
use super::tensors::TensorFile;
use std::path::Path;

/// Reads the file at `path`, of either format.
///
/// # Errors
/// Where it is neither, is damaged, or holds what is not on the allow-list.
pub fn open(path: &Path) -> Result<PyTorchFile, ConvertError> {
    let file = TensorFile::open(path)?;
    let head = file.read(0, usize::try_from(file.len().min(512)).unwrap_or(512))?;
    let damaged = |reason: &str| ConvertError::damaged(path, reason);
    if head.starts_with(b"PK\x03\x04") {
        zip::open(&file)
    } else if legacy::is_legacy(&head) {
        legacy::open(&file)
    } else if head.get(257..262) == Some(b"ustar") {
        Err(damaged(
            "it is a tar archive, PyTorch's format of before 2017, which is not read (CVE-2025-32434); \
             load it with PyTorch where you trust it, and save it again",
        ))
    } else {
        Err(damaged(
            "it is neither a zip archive nor a legacy file of torch.save",
        ))
    }
}
