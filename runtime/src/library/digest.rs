//! SHA-256 of files, and the check of a file against what it must be.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::error::{LibraryError, Result, io};
use super::pinned::PinnedFile;

/// SHA-256 of a file in hexadecimal.
pub(super) fn sha256(path: &Path) -> Result<String> {
    hash(path).map_err(io("read", path))
}

fn hash(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => hasher.update(&buffer[..read]),
        }
    }
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

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
    let found = sha256(path)?;
    if found != pinned.sha256 {
        return Err(LibraryError::WrongHash {
            path: path.to_owned(),
            expected: pinned.sha256.to_owned(),
            found,
        });
    }
    Ok(())
}
