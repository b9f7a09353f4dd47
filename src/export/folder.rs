//! What stands beside an exported model, for the programs that load the folder.

use super::{ExportError, MODEL_FILE};
use crate::convert::hf_folder::limit_length;
use crate::convert::{ConvertError, Source};
use crate::data::tokenizer::{TOKENIZER_FILE, copy_tokenizer};
use std::fs;
use std::path::Path;

/// Only an empty folder or an earlier export is replaced.
pub fn refuse_strangers(target: &Path) -> Result<(), ExportError> {
    let occupied = || ExportError::Occupied {
        path: target.to_owned(),
    };
    if !target.exists() || target.join(MODEL_FILE).is_file() {
        return Ok(());
    }
    if !target.is_dir() {
        return Err(occupied());
    }
    let mut entries = fs::read_dir(target).map_err(ExportError::io("read", target))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(occupied()),
    }
}

/// Writes the tokenizer, where there is one.
pub fn write_tokenizer(source: &Source, folder: &Path) -> Result<(), ConvertError> {
    if let Some(tokenizer) = &source.tokenizer {
        copy_tokenizer(&tokenizer.join(TOKENIZER_FILE), folder)?;
        limit_length(folder, source.model.max_positions)?;
    }
    Ok(())
}
