//! Where a tokenizer's files are, and the files themselves.

use std::path::{Path, PathBuf};

use mpnet_runtime::lfs::refuse_pointer;
use serde_json::Value;

use crate::data::error::{DataError, Result};
use crate::data::hub::{Hub, HubSettings, tokenizer_folder};

use super::{TOKENIZER_FILE, TOKENIZER_FILES};

/// The definition of the tokenizer called `name`: a folder with a `tokenizer.json`, such a file, or that of a
/// repository on the HuggingFace Hub.
///
/// # Errors
/// When nothing is there.
pub(super) fn locate(name: &str) -> Result<PathBuf> {
    let given = Path::new(name);
    let path = if given.is_dir() {
        given.join(TOKENIZER_FILE)
    } else {
        given.to_owned()
    };
    if path.is_file() {
        refuse_pointer(&path)?;
        return Ok(path);
    }
    if !given.is_dir() {
        return from_hub(name);
    }
    Err(DataError::TokenizerInvalid {
        path,
        problem: "the folder has no such file; transformers' save_pretrained of a fast tokenizer writes it".into(),
    })
}

/// The definition of the tokenizer of that name on the HuggingFace Hub, or in its cache.
fn from_hub(name: &str) -> Result<PathBuf> {
    let not_found = |hub| DataError::TokenizerNotFound {
        name: name.into(),
        hub,
    };
    let hub = Hub::new(HubSettings::from_env());
    match tokenizer_folder(&hub, name, "main") {
        Ok(Some(folder)) => Ok(folder.join(TOKENIZER_FILE)),
        Ok(None) => Err(not_found(None)),
        Err(error) => Err(not_found(Some(error))),
    }
}

/// Copies a tokenizer's definition, under its usual name, and the files beside it that belong to it
/// into `folder`, which must exist.
///
/// # Errors
/// When a file can't be read or written.
pub fn copy_tokenizer(definition: &Path, folder: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        let source = if name == TOKENIZER_FILE {
            definition.to_owned()
        } else {
            definition.with_file_name(name)
        };
        if !source.is_file() {
            continue;
        }
        // Contents only: a read-only original must not make a read-only copy.
        let bytes = std::fs::read(&source).map_err(|e| DataError::TokenizerRead {
            path: source,
            source: e,
        })?;
        let target = folder.join(name);
        std::fs::write(&target, bytes).map_err(|e| DataError::Write {
            path: target,
            source: e,
        })?;
    }
    Ok(())
}

/// The JSON in a file, `None` where there is no such file.
pub(super) fn read_json(path: &Path) -> Result<Option<Value>> {
    refuse_pointer(path)?;
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(DataError::TokenizerRead {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| DataError::TokenizerInvalid {
            path: path.to_owned(),
            problem: format!("it is not JSON: {e}"),
        })
}
