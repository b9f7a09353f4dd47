//! From a run's configuration to its end: everything is checked before anything is spent.

use super::config::{TrainConfig, Vocabulary};
use super::engine::start;
use super::foreign::Foreign;
use super::initialize::initial_parameters;
use super::progress::Progress;
use super::stop::StopSignal;
use super::trainer::{Ended, Position, Trainer};
use crate::checkpoint::{self, Checkpoint, Pointer};
use crate::data::{EvaluationSet, LoaderConfig, LoaderState, Tokenizer, TrainLoader};
use anyhow::{Context, Result, bail};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::library::Loaded;
use std::path::Path;
use std::sync::Arc;

/// Batches that wait for the engine.
const PREFETCH: usize = 8;

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

/// Trains as `config` says, on the build that `load` gives once text and settings are known to be
/// in order.
///
/// # Errors
/// Where anything fails; the message says what and where.
pub fn run(config: &TrainConfig, load: impl FnOnce() -> Result<Loaded>) -> Result<Ended> {
    let stop = StopSignal::listen()?;
    let tokenizer = Arc::new(Tokenizer::load(&config.tokenizer)?);
    let foreign = config
        .start_from
        .as_ref()
        .map(|path| Foreign::open(path, config, &tokenizer))
        .transpose()
        .context("opening the model to start from (--hf-model-path)")?;
    let model = match &foreign {
        Some(foreign) => foreign.model.clone(),
        None => config.architecture.model(&vocabulary(&tokenizer)),
    };
    model.validate().context("the model's settings")?;
    checkpoint::check_writable(&config.checkpoint_dir)?;
    let open = |path| {
        EvaluationSet::open(
            path,
            &tokenizer,
            config.batch_size,
            config.max_tokens,
            config.seed,
        )
    };
    let valid = open(&config.text.valid_file).context("the validation text (--valid-file)")?;
    let test = open(&config.text.test_file).context("the test text (--test-file)")?;
    let loader = LoaderConfig {
        train_dir: config.text.train_dir.clone(),
        batch_size: config.batch_size,
        max_tokens: config.max_tokens,
        seed: config.seed,
        threads: config.data_threads,
        prefetch: PREFETCH,
    };
    let resumed = config
        .resume
        .as_ref()
        .map(|path| resume(path, config, &model))
        .transpose()
        .context("resuming")?;
    let state = resumed.as_ref().map(|(_, position)| position.data.clone());
    let loader = TrainLoader::new(loader, Arc::clone(&tokenizer), state)?;

    let loaded = load()?;
    let options = Options {
        optimizer: config.optimizer,
        expose: false,
    };
    let (mut checkpoint, position) = match resumed {
        Some((checkpoint, position)) => (Some(checkpoint), position),
        None => (
            None,
            Position {
                step: 0,
                best_loss: None,
                validated: None,
                data: LoaderState::new(config.seed),
            },
        ),
    };
    let fresh = match (&checkpoint, foreign) {
        (Some(_), _) => None,
        (None, None) => Some(initial_parameters(&model, config.seed)),
        (None, Some(foreign)) => {
            let (parameters, notes) = foreign.parameters(config.seed)?;
            for note in notes {
                eprintln!("note: {note}");
            }
            Some(parameters)
        }
    };
    let initial = match (&checkpoint, &fresh) {
        (Some(checkpoint), _) => checkpoint.parameters.as_slice(),
        (None, fresh) => fresh.as_deref().unwrap_or_default(),
    };
    let count: usize = initial.iter().map(|p| p.values.len()).sum();
    let mut running = start(&loaded, &model, &options, initial, &config.execution)?;
    if let Some(state) = checkpoint.as_mut().and_then(|c| c.optimizer.take()) {
        running.engine.set_optimizer_state(state)?;
    }
    drop((fresh, checkpoint));
    checkpoint::prepare(&config.checkpoint_dir)?;
    let progress = Progress::new(
        position.step,
        config.schedule.total_updates,
        config.logging_steps,
    );
    progress.note(&format!(
        "ONNX Runtime {}, {} | {:.1} M parameters | vocabulary {} | {} updates of {} × {} rows",
        loaded.version,
        running.description,
        count as f64 / 1e6,
        model.vocab_size,
        config.schedule.total_updates,
        config.update_freq,
        config.batch_size,
    ));
    let mut trainer = Trainer {
        config,
        model: &model,
        tokenizer: &tokenizer,
        running,
        loader,
        valid,
        test,
        position,
        stop,
        progress,
        saved: None,
        only_best: None,
    };
    trainer.run()
}

/// The checkpoint to go on from, and where it stands.
fn resume(
    path: &Path,
    config: &TrainConfig,
    model: &ModelConfig,
) -> Result<(Checkpoint, Position)> {
    let path = match path.as_os_str().is_empty() {
        true => &config.checkpoint_dir,
        false => path,
    };
    let folder = checkpoint::resolve(path, Pointer::Latest)?;
    let found = checkpoint::load(&folder)?;
    if model.vocab_size > found.model.padded_vocab_size {
        bail!(
            "the tokenizer {} has a vocabulary of {} entries, more than the {} of the model in {}: resume \
             with the tokenizer of that run, {}",
            config.tokenizer,
            model.vocab_size,
            found.model.padded_vocab_size,
            folder.display(),
            folder.join(checkpoint::TOKENIZER_FOLDER).display()
        );
    }
    if found.model != *model {
        bail!(
            "the model in {} is not the one that the flags and the tokenizer describe ({}): resume with \
             those of that run",
            folder.display(),
            differences(&found.model, model)?
        );
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
    Ok((found, position))
}

/// Whether the best checkpoint of the run's folder is the one of this loss. It is not where a run goes
/// on in another folder or from an older checkpoint: the next validation is then the best so far.
fn is_best(loss: f64, config: &TrainConfig) -> bool {
    checkpoint::resolve(&config.checkpoint_dir, Pointer::Best)
        .and_then(|folder| checkpoint::read_state(&folder))
        .is_ok_and(|state| state.best_loss == Some(loss))
}

/// The settings in which two models differ.
fn differences(there: &ModelConfig, here: &ModelConfig) -> Result<String> {
    let (there, here) = (serde_json::to_value(there)?, serde_json::to_value(here)?);
    let fields = there.as_object().into_iter().flatten();
    let different: Vec<String> = fields
        .filter(|(field, value)| here[field] != **value)
        .map(|(field, value)| format!("{field} is {value} there and {} here", here[field]))
        .collect();
    Ok(different.join(", "))
}
