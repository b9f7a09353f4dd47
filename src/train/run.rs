//! From a run's configuration to its end: everything is checked before anything is spent.

use super::changes::changes;
use super::config::{TrainConfig, Vocabulary};
use super::dry_run;
use super::engine::{Running, start};
use super::execution::Execution;
use super::feeder::{Feeder, stalled};
use super::figures::Figures;
use super::flags::Flags;
use super::foreign::open_start;
use super::initialize::initial_parameters;
use super::log::Log;
use super::log::record::{Start, now};
use super::saver::Saver;
use super::text;
use super::trainer::{Ended, Position, Trainer};
use crate::checkpoint::{self, Checkpoint, CheckpointError, Pointer};
use crate::data::tokenizer::{TOKENIZER_FILE, same_tokenizer};
use crate::data::{LoaderState, Tokenizer, TrainLoader};
use crate::machine;
use crate::output::complain;
use crate::staging::replace_file;
use crate::stop::StopSignal;
use anyhow::{Context, Result, bail};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_plan::Provider;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Tokens of a row that is short for a whole batch of them.
const SHORT_ROW: usize = 8;

/// The settings of a run, beside its checkpoints.
pub const CONFIG_FILE: &str = "config.toml";

/// What the graph has to know of a tokenizer.
pub fn vocabulary(tokenizer: &Tokenizer) -> Vocabulary {
    Vocabulary {
        size: tokenizer.vocab_size(),
        pad: tokenizer.pad_id().into(),
        bos: tokenizer.bos_id().into(),
        eos: tokenizer.eos_id().into(),
        unk: tokenizer.unk_id().unwrap_or(tokenizer.mask_id()).into(),
        mask: tokenizer.mask_id().into(),
    }
}

/// What the program that starts a run knows of its flags.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    pub flags: Flags,
    /// Every flag in effect, as `config.toml` has it.
    pub in_effect: String,
}

/// Trains as `config` says, which `command_line` asked for.
///
/// # Errors
/// Where anything fails; the message says what and where.
pub fn run(config: &TrainConfig, command_line: &CommandLine) -> Result<Ended> {
    let stop = StopSignal::listen()?;
    let stopped = || {
        let signal = stop.received()?;
        complain(&format!(
            "stopped by signal {signal} before training began; there is nothing to save"
        ));
        Some(Ended::Signal(signal))
    };
    let (tokenizer, foreign) = match (open_start(config), stopped()) {
        // The signal may be why it failed.
        (_, Some(ended)) => return Ok(ended),
        (opened, None) => opened?,
    };
    let tokenizer = Arc::new(tokenizer);
    let mut model = match &foreign {
        Some(foreign) => foreign.model.clone(),
        None => config.architecture.model(&vocabulary(&tokenizer)),
    };
    model.objective = config.masking.objective;
    model.validate().context("the model's settings")?;
    let keeping = || {
        format!(
            "keeping checkpoints in {} (--checkpoint-dir)",
            config.checkpoint_dir.display()
        )
    };
    checkpoint::check_writable(&config.checkpoint_dir).with_context(keeping)?;
    // Early, where there is a folder to look at; another run may be using it.
    let mut lock = None;
    if config.checkpoint_dir.is_dir() {
        // What a run was killed over may be what is to be resumed.
        lock = Some(checkpoint::prepare(&config.checkpoint_dir).with_context(keeping)?);
        warn_of_an_earlier_run(config);
    }
    tracing::debug!("opening the text");
    let text::Opened {
        loader,
        valid,
        test,
    } = match (text::open(config, &tokenizer), stopped()) {
        (_, Some(ended)) => return Ok(ended),
        (opened, None) => opened?,
    };
    let resumed = config
        .resume
        .as_ref()
        .map(|path| resume(path, config, &command_line.flags, &model, &tokenizer))
        .transpose()
        .context("resuming")?;
    let state = resumed.as_ref().map(|r| r.position.data.clone());
    let loader = TrainLoader::new(loader, Arc::clone(&tokenizer), state)?;
    let mut feeder = Feeder::new(loader, config.update_freq)?;

    if let Some(ended) = stopped() {
        return Ok(ended);
    }
    tracing::debug!("loading ONNX Runtime");
    let loaded = config.execution.load(config.ort.clone())?;
    if let Some(ended) = stopped() {
        return Ok(ended);
    }
    let options = Options {
        optimizer: config.optimizer,
        gradient_checkpointing: config.execution.gradient_checkpointing,
        expose: false,
    };
    let (mut checkpoint, position, saved) = match resumed {
        Some(Resumed {
            checkpoint,
            position,
            saved,
        }) => (Some(checkpoint), position, saved),
        None => (
            None,
            Position {
                step: 0,
                best_loss: None,
                validated: None,
                data: LoaderState::new(config.seed),
            },
            None,
        ),
    };
    let fresh = match (&checkpoint, foreign) {
        (Some(_), _) => None,
        (None, None) => Some(initial_parameters(&model, config.seed)),
        (None, Some(foreign)) => {
            let (parameters, notes) = foreign.parameters(config.seed)?;
            for note in notes {
                complain(&format!("note: {note}"));
            }
            Some(parameters)
        }
    };
    let initial = match (&checkpoint, &fresh) {
        (Some(checkpoint), _) => checkpoint.parameters.as_slice(),
        (None, fresh) => fresh.as_deref().unwrap_or_default(),
    };
    let count: usize = initial.iter().map(|p| p.values.len()).sum();
    tracing::debug!("compiling the model");
    let execution = Execution {
        largest_batch: Some(config.largest_batch()),
        ..config.execution
    };
    let mut running = start(&loaded, &model, &options, initial, &execution)?;
    if let Some(state) = checkpoint.as_mut().and_then(|c| c.optimizer.take()) {
        running.engine.set_optimizer_state(state)?;
    }
    let resumed = checkpoint.is_some();
    drop((fresh, checkpoint));
    check_memory(config, &running)?;
    feeder.wait(&stop, |waited| {
        complain(&stalled(position.step + 1, waited));
    })?;
    if let Some(ended) = stopped().filter(|_| resumed) {
        return Ok(ended);
    }
    if config.operation.dry_run {
        let step = position.step;
        dry_run::dry_run(config, &model, &mut running, &mut feeder, step, &stop)?;
        return Ok(Ended::Finished);
    }
    if lock.is_none() {
        lock = Some(checkpoint::prepare(&config.checkpoint_dir).with_context(keeping)?);
    }
    keep_settings(config, &command_line.in_effect)?;
    let execution = &config.execution;
    let peak = machine::peak(
        execution.provider(),
        execution.device_id,
        execution.precision(),
    );
    let total = config.schedule.total_updates;
    let start = Start {
        step: position.step,
        time: now(),
        total_updates: total,
        parameters: count as u64,
        vocabulary: model.vocab_size as u64,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        onnxruntime: loaded.version.to_string(),
        execution: running.description.clone(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        config: serde_json::to_value(config)?,
    };
    let saver = Saver::new(
        &config.checkpoint_dir,
        config.operation.save_patience,
        stop.clone(),
    );
    let mut trainer = Trainer {
        config,
        model: &model,
        tokenizer: &tokenizer,
        running,
        feeder,
        valid,
        test,
        position,
        stop,
        log: Log::new(
            &config.checkpoint_dir,
            &config.operation.log,
            start,
            !resumed,
        ),
        figures: Figures::new(config.logging_steps, total, peak),
        saver,
        skipped_in_row: 0,
        saved,
        only_best: None,
    };
    let ended = trainer.run();
    if let Err(error) = &ended {
        trainer.log.failure(error);
    }
    drop((trainer, lock));
    ended
}

/// Refuses batches that this machine's memory cannot hold however short their rows are. Those of a GPU
/// are refused by its provider.
fn check_memory(config: &TrainConfig, running: &Running) -> Result<()> {
    let (Provider::Cpu, Some(memory)) = (config.execution.provider(), machine::total_memory())
    else {
        return Ok(());
    };
    let length = SHORT_ROW.min(config.max_tokens);
    let (rows, flags) = match config.batching.max_batch_tokens {
        Some(tokens) => (tokens / length, format!("--max-batch-tokens {tokens}")),
        None => (
            config.batch_size,
            format!("--batch-size {}", config.batch_size),
        ),
    };
    let needed = running.step_memory(&config.masking.batch_sizes(rows, length));
    if needed > memory {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        bail!(
            "{flags} takes {:.0} GB or more for the activations of a micro-batch, and there are \
             {:.0} GB of memory for this program: make it smaller, and --update-freq larger for the same updates",
            gb(needed),
            gb(memory)
        );
    }
    Ok(())
}

/// A run that does not resume writes over what is there, bit by bit.
fn warn_of_an_earlier_run(config: &TrainConfig) {
    if config.resume.is_none()
        && let Ok(found) = checkpoint::candidates(&config.checkpoint_dir)
        && let Some(newest) = found.first()
    {
        tracing::warn!(
            "{} is of an earlier run: this run starts anew and writes over checkpoints of the same \
             updates; to go on from there, give --resume, to keep it, another --checkpoint-dir",
            newest.display()
        );
    }
}

/// Writes `config.toml` beside the checkpoints.
fn keep_settings(config: &TrainConfig, in_effect: &str) -> Result<()> {
    let path = config.checkpoint_dir.join(CONFIG_FILE);
    replace_file(&path, |file| file.write_all(in_effect.as_bytes()))
        .with_context(|| format!("writing {}", path.display()))
}

/// What a resumed run goes on from.
struct Resumed {
    checkpoint: Checkpoint,
    position: Position,
    /// Its step, where it is already a checkpoint of this run.
    saved: Option<u64>,
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

/// The checkpoint to go on from, and where it stands.
fn resume(
    path: &Path,
    config: &TrainConfig,
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
    let best_loss = found.best_loss.filter(|&loss| is_best(loss, config));
    let position = Position {
        step: found.step,
        best_loss,
        validated: found.validated.filter(|_| best_loss.is_some()),
        data: serde_json::from_value(found.data.clone())
            .with_context(|| format!("reading the data position in {}", folder.display()))?,
    };
    let here = config
        .checkpoint_dir
        .join(checkpoint::folder_name(found.step));
    let complete = found.optimizer.is_some() || !config.operation.save_optimizer_state;
    let same = matches!((here.canonicalize(), folder.canonicalize()), (Ok(a), Ok(b)) if a == b);
    Ok(Resumed {
        saved: (same && complete && changed.is_empty()).then_some(found.step),
        checkpoint: found,
        position,
    })
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
