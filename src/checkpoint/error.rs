//! What can be wrong with a checkpoint or its folder.

use std::path::{Path, PathBuf};

/// An error of reading or writing checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("checkpoint folder {} cannot be written to; choose another", path.display())]
    NotWritable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("checkpoint folder {} is in use by another run{holder}: wait for it to end, or choose another folder", path.display())]
    Locked { path: PathBuf, holder: String },
    #[error("there is no checkpoint at {}: expected a checkpoint-<step> folder, or a folder that holds some", path.display())]
    NotFound { path: PathBuf },
    #[error("{0} is a PyTorch file; 'mpnet import {0} --output FOLDER' makes a checkpoint of it", path.display())]
    PyTorch { path: PathBuf },
    #[error("{} is damaged: {reason}; use an older checkpoint", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} has format version {found}; this program reads up to {known}: use a newer version of it", path.display())]
    Version {
        path: PathBuf,
        found: u64,
        known: u64,
    },
    #[error(transparent)]
    Tokenizer(#[from] crate::data::DataError),
    #[error("encoding {}: {reason}", path.display())]
    Encode { path: PathBuf, reason: String },
}

impl CheckpointError {
    /// For `map_err` of a file operation.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> Self {
        move |source| CheckpointError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    pub(super) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        CheckpointError::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
