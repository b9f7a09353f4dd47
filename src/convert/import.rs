//! Any model as a native checkpoint.

use super::ConvertError;
use super::source::Source;
use crate::checkpoint::{self, Checkpoint, Pointer};
use crate::data::LoaderState;
use std::path::{Path, PathBuf};

/// Writes `source` as a checkpoint in the folder `target`, where `latest` and `best` name it, and
/// returns its own folder.
///
/// Training goes on from its update; its text begins anew, in the order of `seed`.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn import(source: &Source, target: &Path, seed: u64) -> Result<PathBuf, ConvertError> {
    let data = serde_json::to_value(LoaderState::new(seed)).map_err(|e| ConvertError::Encode {
        file: checkpoint::STATE_FILE.to_owned(),
        reason: e.to_string(),
    })?;
    let checkpoint = Checkpoint {
        model: source.model.clone(),
        config: source.run.clone(),
        step: source.step,
        best_loss: source.best_loss,
        best_figure: None,
        validated: None,
        data,
        seed,
        parameters: source.read_all()?,
        optimizer: source.optimizer()?,
        tokenizer: source.tokenizer.clone(),
    };
    let _lock = checkpoint::prepare(target)?;
    let folder = checkpoint::save(target, &checkpoint)?;
    checkpoint::set_pointer(target, Pointer::Latest, checkpoint.step)?;
    checkpoint::set_pointer(target, Pointer::Best, checkpoint.step)?;
    Ok(folder)
}
