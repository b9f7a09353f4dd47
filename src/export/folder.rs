//! What stands beside an exported model, for the programs that load the folder.

use super::{ExportError, MODEL_FILE};
use crate::convert::hf_folder::limit_length;
use crate::convert::{ConvertError, Source};
use crate::data::tokenizer::{TOKENIZER_FILE, copy_tokenizer};
use std::fs;
use std::path::Path;

/// Only an empty folder, or one that `ours` knows for an earlier export, is written to.
pub fn refuse_strangers(target: &Path, ours: fn(&Path) -> bool) -> Result<(), ExportError> {
    let empty = || fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_none());
    match !target.exists() || ours(target) || empty() {
        true => Ok(()),
        false => Err(ExportError::Occupied {
            path: target.to_owned(),
        }),
    }
}

/// Whether `target` is an exported model's folder.
pub fn is_ours(target: &Path) -> bool {
    target.join(MODEL_FILE).is_file()
}

/// Writes the tokenizer, where there is one.
pub fn write_tokenizer(source: &Source, folder: &Path) -> Result<(), ConvertError> {
    if let Some(tokenizer) = &source.tokenizer {
        copy_tokenizer(&tokenizer.join(TOKENIZER_FILE), folder)?;
        limit_length(folder, source.model.max_positions)?;
    }
    Ok(())
}
