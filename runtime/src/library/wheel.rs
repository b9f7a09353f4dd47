//! Takes the libraries out of a wheel, which is a zip file.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use zip::ZipArchive;

use super::error::{LibraryError, Result};

/// Unpacks the files of `wheel` that are `wanted` into `folder`, under the paths where they would be installed;
/// returns these paths.
///
/// # Errors
/// The wheel is damaged or names paths outside of itself, or `folder` cannot be written.
pub(super) fn unpack(
    wheel: &Path,
    folder: &Path,
    wanted: impl Fn(&Path) -> bool,
) -> Result<Vec<PathBuf>> {
    let damaged = |reason: String| LibraryError::DamagedWheel {
        path: wheel.to_owned(),
        reason,
    };
    let file = File::open(wheel).map_err(super::error::io("open", wheel))?;
    let mut archive = ZipArchive::new(file).map_err(|error| damaged(error.to_string()))?;
    let mut unpacked = Vec::new();
    for index in 0..archive.len() {
        let mut entry = archive
            .by_index(index)
            .map_err(|error| damaged(error.to_string()))?;
        let name = entry
            .name()
            .map_err(|error| damaged(error.to_string()))?
            .into_owned();
        if !entry.is_file() {
            continue;
        }
        let Some(path) = entry.enclosed_name() else {
            return Err(damaged(format!("it holds the path {name:?}")));
        };
        let path = installed(&path);
        if !wanted(&path) {
            continue;
        }
        let target = folder.join(&path);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent).map_err(super::error::io("create the folder", parent))?;
        }
        let mut output = File::create(&target).map_err(super::error::io("create", &target))?;
        io::copy(&mut entry, &mut output).map_err(|error| match error.kind() {
            // What the zip reader says of contents that don't fit their checksum or end early.
            io::ErrorKind::InvalidData
            | io::ErrorKind::InvalidInput
            | io::ErrorKind::UnexpectedEof
            | io::ErrorKind::Other => damaged(format!("{}: {error}", path.display())),
            _ => super::error::io("write", &target)(error),
        })?;
        unpacked.push(path);
    }
    Ok(unpacked)
}

/// Where a file of a wheel is installed: its folder `NAME.data/data` stands for the environment's own.
fn installed(path: &Path) -> PathBuf {
    let mut parts = path.components();
    let data = parts
        .next()
        .zip(parts.next())
        .is_some_and(|(first, second)| {
            let first = Path::new(first.as_os_str());
            first.extension().is_some_and(|e| e == "data") && second.as_os_str() == "data"
        });
    match data {
        true => parts.collect(),
        false => path.to_owned(),
    }
}

/// Whether a file of a build is needed.
pub(super) fn is_library_or_licence(path: &Path) -> bool {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.ends_with(".so")
        || file.contains(".so.")
        || file.ends_with(".dll")
        || file.ends_with(".dylib")
        || file == "LICENSE"
        || file == "ThirdPartyNotices.txt"
}
