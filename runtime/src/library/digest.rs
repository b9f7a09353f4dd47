//! The check of a file against what it must be.

use std::path::Path;

use super::error::{LibraryError, Result, io};
use super::pinned_wheel::PinnedFile;
use crate::digest::sha256_file;

/// Checks that the file at `path` is the pinned one.
///
/// # Errors
/// [`LibraryError::Truncated`] if it is shorter, [`LibraryError::WrongHash`] if it differs in any other way.
pub(super) fn check(path: &Path, pinned: &PinnedFile) -> Result<()> {
    let bytes = path.metadata().map_err(io("read", path))?.len();
    if bytes < pinned.bytes {
        return Err(LibraryError::Truncated {
            path: path.to_owned(),
            expected: pinned.bytes,
            found: bytes,
        });
    }
    let found = sha256_file(path).map_err(io("read", path))?;
    if found != pinned.sha256 {
        return Err(LibraryError::WrongHash {
            path: path.to_owned(),
            expected: pinned.sha256.to_owned(),
            found,
        });
    }
    Ok(())
}
