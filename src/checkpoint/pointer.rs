//! `latest` and `best`: one-line files that name a checkpoint, replaced whole.

use super::error::CheckpointError;
use super::{Result, STATE_FILE, folder_name, step_of};
use crate::staging::replace_file;
use std::io::Write;
use std::path::{Path, PathBuf};

/// A name for one of a folder's checkpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pointer {
    /// The newest.
    Latest,
    /// The one with the lowest validation loss.
    Best,
}

impl Pointer {
    fn file(self) -> &'static str {
        match self {
            Pointer::Latest => "latest",
            Pointer::Best => "best",
        }
    }
}

/// Points at the checkpoint of `step` in `dir`.
///
/// # Errors
/// Where the file cannot be written.
pub fn set_pointer(dir: &Path, pointer: Pointer, step: u64) -> Result<()> {
    let path = dir.join(pointer.file());
    replace_file(&path, |file| writeln!(file, "{}", folder_name(step)))
        .map_err(CheckpointError::io("write", &path))
}

/// The step that `pointer` names in `dir`, if it does.
///
/// # Errors
/// Where the file is there and makes no sense.
pub fn pointed(dir: &Path, pointer: Pointer) -> Result<Option<u64>> {
    let path = dir.join(pointer.file());
    match std::fs::read_to_string(&path) {
        Ok(text) => step_of(text.trim())
            .map(Some)
            .ok_or_else(|| CheckpointError::damaged(&path, "it names no checkpoint")),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(CheckpointError::io("read", &path)(e)),
    }
}

/// The steps of all checkpoints in `dir`, in order.
pub(super) fn steps(dir: &Path) -> Result<Vec<u64>> {
    let mut steps = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(CheckpointError::io("read", dir))? {
        let entry = entry.map_err(CheckpointError::io("read", dir))?;
        steps.extend(entry.file_name().to_str().and_then(step_of));
    }
    steps.sort_unstable();
    Ok(steps)
}

/// The checkpoints that a run may go on from, best choice first: `path` alone where it is one; else
/// the one that `latest` names, then those before it, newest first; all of them where `latest` names
/// none.
///
/// # Errors
/// Where there is none at all.
pub fn candidates(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() || path.join(STATE_FILE).is_file() {
        return Ok(vec![resolve(path, Pointer::Latest)?]);
    }
    let latest = match pointed(path, Pointer::Latest) {
        Ok(latest) => latest,
        Err(error) => {
            tracing::warn!("{error}: going by the names of the checkpoints");
            None
        }
    };
    let found: Vec<PathBuf> = steps(path)?
        .into_iter()
        .rev()
        .filter(|&step| latest.is_none_or(|latest| step <= latest))
        .map(|step| path.join(folder_name(step)))
        .collect();
    match found.is_empty() {
        true => Err(CheckpointError::NotFound {
            path: path.to_owned(),
        }),
        false => Ok(found),
    }
}

/// The checkpoint folder that `path` stands for: itself, the one that `pointer` names in it, or,
/// for a `best_checkpoint.pt` that does not exist, the best one of its folder.
///
/// # Errors
/// Where there is none, or the path is a PyTorch file.
pub fn resolve(path: &Path, pointer: Pointer) -> Result<PathBuf> {
    let not_found = || CheckpointError::NotFound {
        path: path.to_owned(),
    };
    if path.is_file() {
        return Err(CheckpointError::PyTorch {
            path: path.to_owned(),
        });
    }
    if path.join(STATE_FILE).is_file() {
        return Ok(path.to_owned());
    }
    let (dir, pointer) = if path.is_dir() {
        (path, pointer)
    } else if path.file_name().is_some_and(|n| n == "best_checkpoint.pt") {
        (path.parent().ok_or_else(not_found)?, Pointer::Best)
    } else {
        return Err(not_found());
    };
    let step = pointed(dir, pointer)?.ok_or_else(not_found)?;
    let folder = dir.join(folder_name(step));
    if !folder.join(STATE_FILE).is_file() {
        return Err(CheckpointError::damaged(
            &dir.join(pointer.file()),
            format!("it names {}, which is not there", folder_name(step)),
        ));
    }
    Ok(folder)
}
