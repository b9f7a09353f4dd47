//! The checkpoint that a run goes on from, and whether it may.

use super::changes::changes;
use super::config::TrainConfig;
use super::flags::Flags;
use super::position::Best;
use crate::checkpoint::{self, Checkpoint, CheckpointError, Pointer};
use crate::data::Tokenizer;
use crate::data::tokenizer::{TOKENIZER_FILE, same_tokenizer};
use crate::launch::WORLD_SIZE;
use crate::output::complain;
use anyhow::{Result, bail};
use mpnet_graphs::model::config::ModelConfig;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// What a resumed run goes on from.
pub struct Resumed {
    pub checkpoint: Checkpoint,
    /// Where it is.
    pub folder: PathBuf,
    /// The best validation so far, where it is that of the best checkpoint of the run's folder.
    pub best: Option<Best>,
    /// Its step, where it is already a checkpoint of this run.
    pub saved: Option<u64>,
}

/// Whether `--resume` alone finds no checkpoint of the run: its first start, as of a job that is submitted again and
/// again with the same line. Said, as it may be another folder that was meant.
pub fn is_first_start(path: &Path, config: &TrainConfig) -> bool {
    let found = checkpoint::candidates(&config.checkpoint_dir);
    let none = matches!(found, Err(CheckpointError::NotFound { .. }));
    let first = path.as_os_str().is_empty() && none;
    if first {
        complain(&format!(
            "note: there is no checkpoint in {} to resume from: the run starts anew",
            config.checkpoint_dir.display()
        ));
    }
    first
}

/// The newest sound checkpoint that `path` stands for; damaged ones are named.
fn newest_sound(path: &Path) -> Result<(PathBuf, Checkpoint)> {
    let mut first = None;
    for folder in checkpoint::candidates(path)? {
        match checkpoint::load(&folder) {
            Ok(found) => {
                if first.is_some() {
                    tracing::warn!("resuming from {} instead", folder.display());
                }
                return Ok((folder, found));
            }
            // A newer program's checkpoint is not damaged: going on before it would lose it.
            Err(error @ CheckpointError::Version { .. }) => return Err(error.into()),
            Err(error) => {
                tracing::warn!("{error}");
                first.get_or_insert(error);
            }
        }
    }
    let not_found = || CheckpointError::NotFound {
        path: path.to_owned(),
    };
    Err(first.unwrap_or_else(not_found).into())
}

/// The checkpoint at `path`, or the latest of the run's folder where it is empty, and where it stands.
///
/// # Errors
/// Where there is none that is sound, or the run `config` with its `model` and `tokenizer` is another one
/// and that is not accepted, or its ranks cannot share the micro-batches of an update.
pub fn resume(
    path: &Path,
    config: &mut TrainConfig,
    flags: &Flags,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<Resumed> {
    let path = match path.as_os_str().is_empty() {
        true => &config.checkpoint_dir,
        false => path,
    };
    let (folder, found) = newest_sound(path)?;
    if model.vocab_size > found.model.padded_vocab_size {
        bail!(
            "the tokenizer {} has a vocabulary of {} entries, more than the {} of the model in {}: resume \
             with the tokenizer of that run, {}",
            tokenizer.path().display(),
            model.vocab_size,
            found.model.padded_vocab_size,
            folder.display(),
            folder.join(checkpoint::TOKENIZER_FOLDER).display()
        );
    }
    if !same_but_dropout(&found.model, model) {
        bail!(
            "the model in {} is not the one that the flags and the tokenizer describe ({}): resume with \
             those of that run",
            folder.display(),
            differences(&found.model, model, flags)?
        );
    }
    keep_micro_batches(&folder, &found.config, config)?;
    let mut changed = changes(&found.config, config, found.step, flags)?;
    let saved = found.tokenizer.as_ref();
    let saved = saved.map(|folder| folder.join(TOKENIZER_FILE));
    if let Some(saved) = saved.filter(|file| file.is_file())
        && !same_tokenizer(&saved, tokenizer.path())?
    {
        let flag = flags.name("tokenizer");
        changed.push(format!("{flag} is another tokenizer than that run's"));
    }
    if !changed.is_empty() {
        let list = changed.join("; ");
        if !config.operation.accept_changes {
            bail!(
                "these flags would change the run in {}: {list}. Give those of that run, or accept the \
                 change with --override",
                folder.display()
            );
        }
        tracing::warn!("resuming with changed flags: {list}");
    }
    if found.optimizer.is_none() {
        tracing::warn!(
            "{} holds no optimizer state: the moments start from zero",
            folder.display()
        );
    }
    if found.step >= config.schedule.total_updates {
        tracing::warn!(
            "{} has {} updates behind it: with --total-updates {} there are none to make",
            folder.display(),
            found.step,
            config.schedule.total_updates
        );
    }
    let best = found.best_loss.filter(|&loss| is_best(loss, config));
    let best = best.map(|loss| Best {
        loss,
        figure: found.best_figure,
    });
    let here = config
        .checkpoint_dir
        .join(checkpoint::folder_name(found.step));
    let complete = found.optimizer.is_some() || !config.operation.save_optimizer_state;
    let same = matches!((here.canonicalize(), folder.canonicalize()), (Ok(a), Ok(b)) if a == b);
    Ok(Resumed {
        saved: (same && complete && changed.is_empty()).then_some(found.step),
        checkpoint: found,
        best,
        folder,
    })
}

/// Keeps the micro-batches of an update on another number of ranks than that of the `saved` run, if the flags say as
/// many for each rank as they did then.
fn keep_micro_batches(folder: &Path, saved: &Value, config: &mut TrainConfig) -> Result<()> {
    let number = |field: &str| saved.get(field).and_then(Value::as_u64);
    let number = |field: &str| number(field).and_then(|n| usize::try_from(n).ok());
    let (before, world) = (number(WORLD_SIZE).unwrap_or(1), config.launch.world);
    let (Some(micro_batches), Some(rows)) = (number("update_freq"), number("batch_size")) else {
        return Ok(());
    };
    let same_flags = config.update_freq / world * before == micro_batches;
    if before == world || !same_flags || config.update_freq == micro_batches {
        return Ok(());
    }
    if !micro_batches.is_multiple_of(world) {
        bail!(
            "the run in {} makes updates of {micro_batches} micro-batches (--batch-size {rows}, {before} ranks), which \
             {world} ranks cannot share: take a number of ranks that divides {micro_batches}, or a smaller --batch-size \
             with --global-batch-size and --override",
            folder.display()
        );
    }
    if config.launch.writes() {
        complain(&format!(
            "note: {} was made by {before} ranks and goes on with {world}: an update stays {micro_batches} \
             micro-batches, --update-freq {} on each",
            folder.display(),
            micro_batches / world
        ));
    }
    config.update_freq = micro_batches;
    Ok(())
}

/// Whether two models have the same parameters and computations but for dropout.
fn same_but_dropout(a: &ModelConfig, b: &ModelConfig) -> bool {
    let a = ModelConfig {
        dropout: b.dropout,
        attention_dropout: b.attention_dropout,
        activation_dropout: b.activation_dropout,
        ..a.clone()
    };
    a == *b
}

/// Whether the best checkpoint of the run's folder is the one of this loss. It is not where a run goes
/// on in another folder or from an older checkpoint: the next validation is then the best so far.
fn is_best(loss: f64, config: &TrainConfig) -> bool {
    checkpoint::resolve(&config.checkpoint_dir, Pointer::Best)
        .and_then(|folder| checkpoint::read_state(&folder))
        .is_ok_and(|state| state.best_loss == Some(loss))
}

/// The settings in which two models differ.
fn differences(there: &ModelConfig, here: &ModelConfig, flags: &Flags) -> Result<String> {
    let (there, here) = (serde_json::to_value(there)?, serde_json::to_value(here)?);
    let fields = there.as_object().into_iter().flatten();
    let different: Vec<String> = fields
        .filter(|(field, value)| here[field] != **value)
        .map(|(field, value)| {
            let said = format!("{field} is {value} there and {} here", here[field]);
            flags.translate(&said)
        })
        .collect();
    Ok(different.join(", "))
}
