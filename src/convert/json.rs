//! JSON files of model folders.

use super::ConvertError;
use mpnet_runtime::lfs::refuse_pointer;
use serde_json::Value;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

/// The JSON in the file at `path`, `None` where there is no such file.
///
/// # Errors
/// Where it cannot be read or is no JSON.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, ConvertError> {
    refuse_pointer(path)?;
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(ConvertError::io("read", path)(error)),
    };
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|e| ConvertError::damaged(path, format!("it is no JSON: {e}")))
}

/// Writes `value` as the file of that name, or path, below `folder`.
///
/// # Errors
/// Where it cannot be written.
pub(crate) fn write_json(
    folder: &Path,
    file: &str,
    value: &impl serde::Serialize,
) -> Result<(), ConvertError> {
    let json = serde_json::to_string_pretty(value).map_err(|e| ConvertError::Encode {
        file: file.to_owned(),
        reason: e.to_string(),
    })?;
    let path = folder.join(file);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(ConvertError::io("create", parent))?;
    }
    fs::write(&path, json + "\n").map_err(ConvertError::io("write", &path))
}
