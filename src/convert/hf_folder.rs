//! Writes a HuggingFace model folder: whole, or not at all.

use super::ConvertError;
use super::hf_config::{HfConfig, unrepresentable};
use super::weight_map::to_hf;
use crate::arrays::write_safetensors;
use crate::data::tokenizer::{TOKENIZER_FILE, TOKENIZER_FILES, copy_tokenizer};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

const MODEL_FILE: &str = "model.safetensors";
const CONFIG_FILE: &str = "config.json";

/// Writes `weights` and, where given, the files in the folder `tokenizer` as the HuggingFace model
/// folder `target`. A model that is there already is replaced.
///
/// # Errors
/// Where HuggingFace cannot represent the model (unless `force`), or a file cannot be written; what
/// was there before stays.
pub fn write_hf_folder(
    target: &Path,
    config: &ModelConfig,
    weights: &[NamedArray],
    tokenizer: Option<&Path>,
    force: bool,
) -> Result<(), ConvertError> {
    let reasons = unrepresentable(config);
    if !reasons.is_empty() && !force {
        return Err(ConvertError::Unrepresentable { reasons });
    }
    refuse_strangers(target)?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    fs::create_dir_all(parent).map_err(io("create", parent))?;
    let folder = tempfile::Builder::new()
        .prefix(".converting-")
        .tempdir_in(parent)
        .map_err(io("create a folder in", parent))?;

    let tensors = to_hf(weights, config)?;
    let path = folder.path().join(MODEL_FILE);
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let named = tensors.iter().map(|t| (t.name.clone(), t));
    write_safetensors(&path, named, Some(metadata)).map_err(io("write", &path))?;
    let json = serde_json::to_string_pretty(&HfConfig::from(config)).map_err(|e| {
        ConvertError::Encode {
            file: CONFIG_FILE,
            reason: e.to_string(),
        }
    })?;
    let path = folder.path().join(CONFIG_FILE);
    fs::write(&path, json + "\n").map_err(io("write", &path))?;
    if let Some(tokenizer) = tokenizer {
        copy_tokenizer(&tokenizer.join(TOKENIZER_FILE), folder.path())?;
    }
    install(folder, target)
}

/// Whether a folder written by this program can hold it, or its owner's own words beside it.
fn known(name: &OsStr) -> bool {
    let files = [MODEL_FILE, CONFIG_FILE, "README.md"];
    files
        .iter()
        .chain(&TOKENIZER_FILES)
        .any(|file| name == *file)
}

/// A folder with anything else in it is not replaced.
fn refuse_strangers(target: &Path) -> Result<(), ConvertError> {
    if !target.exists() {
        return Ok(());
    }
    let occupied = || ConvertError::Occupied {
        path: target.to_owned(),
    };
    if !target.is_dir() {
        return Err(occupied());
    }
    for entry in fs::read_dir(target).map_err(io("read", target))? {
        let name = entry.map_err(io("read", target))?.file_name();
        if !known(&name) {
            return Err(occupied());
        }
    }
    Ok(())
}

/// Moves the finished folder to its place.
fn install(folder: tempfile::TempDir, target: &Path) -> Result<(), ConvertError> {
    let finished = folder.path().to_owned();
    // Readable by whoever may read its surroundings: temporary folders are their owner's alone.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&finished, fs::Permissions::from_mode(0o755))
            .map_err(io("set the permissions of", &finished))?;
    }
    if target.exists() {
        fs::remove_dir_all(target).map_err(io("replace", target))?;
    }
    fs::rename(&finished, target).map_err(io("write", target))?;
    // The folder has moved: there is nothing left to remove.
    let _ = folder.keep();
    Ok(())
}

fn io(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> ConvertError {
    move |source| ConvertError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
