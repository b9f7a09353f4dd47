//! Writes a HuggingFace model folder: whole, or not at all.

use super::ConvertError;
use super::hf_config::{HfConfig, unrepresentable};
use super::weight_map::to_hf;
use crate::arrays::write_safetensors;
use crate::data::tokenizer::{
    CONFIG_FILE as TOKENIZER_CONFIG_FILE, TOKENIZER_FILE, TOKENIZER_FILES, copy_tokenizer,
};
use crate::staging::Staging;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

const MODEL_FILE: &str = "model.safetensors";
const CONFIG_FILE: &str = "config.json";
/// May be added by whoever publishes the model.
const OWNERS_FILE: &str = "README.md";
const MAX_LENGTH: &str = "model_max_length";

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
    let folder = Staging::new(target).map_err(io("create a folder beside", target))?;

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
        limit_length(folder.path(), config.max_positions)?;
    }
    // The owner's words stay with the model.
    let words = target.join(OWNERS_FILE);
    if words.is_file() {
        fs::copy(&words, folder.path().join(OWNERS_FILE)).map_err(io("copy", &words))?;
    }
    folder.replace().map_err(io("write", target))
}

/// A tokenizer made for longer rows than the model has positions for would send transformers beyond
/// the position table: its `model_max_length` becomes the model's.
fn limit_length(folder: &Path, max_positions: usize) -> Result<(), ConvertError> {
    let path = folder.join(TOKENIZER_CONFIG_FILE);
    if !path.is_file() {
        return Ok(());
    }
    let encode = |e: serde_json::Error| ConvertError::Encode {
        file: TOKENIZER_CONFIG_FILE,
        reason: e.to_string(),
    };
    let text = fs::read(&path).map_err(io("read", &path))?;
    let mut json: serde_json::Value = serde_json::from_slice(&text).map_err(encode)?;
    // Where it names none, transformers writes 1e30.
    let length = json[MAX_LENGTH].as_f64().unwrap_or(f64::INFINITY);
    if let Some(fields) = json
        .as_object_mut()
        .filter(|_| length > max_positions as f64)
    {
        fields.insert(MAX_LENGTH.to_owned(), max_positions.into());
        let text = serde_json::to_string_pretty(&json).map_err(encode)?;
        fs::write(&path, text + "\n").map_err(io("write", &path))?;
    }
    Ok(())
}

/// Whether a folder written by this program can hold it, or its owner's own words beside it.
fn known(name: &OsStr) -> bool {
    let files = [MODEL_FILE, CONFIG_FILE, OWNERS_FILE];
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

fn io(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> ConvertError {
    move |source| ConvertError::Io {
        doing,
        path: path.to_owned(),
        source,
    }
}
