//! From a run's configuration to its end: everything is checked before anything is spent.

use super::config::{TrainConfig, Vocabulary};
use super::engine::start;
use super::initialize::initial_parameters;
use super::progress::Progress;
use super::stop::StopSignal;
use super::trainer::{Ended, Position, Trainer};
use crate::checkpoint;
use crate::data::{EvaluationSet, LoaderConfig, LoaderState, Tokenizer, TrainLoader};
use anyhow::{Context, Result};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_runtime::library::Loaded;
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
    let model = config.architecture.model(&vocabulary(&tokenizer));
    model.validate().context("the model's settings")?;
    checkpoint::prepare(&config.checkpoint_dir)?;
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
        threads: 1,
        prefetch: PREFETCH,
    };
    let loader = TrainLoader::new(loader, Arc::clone(&tokenizer), None)?;

    let loaded = load()?;
    let options = Options {
        optimizer: config.optimizer,
        expose: false,
    };
    let initial = initial_parameters(&model, config.seed);
    let count: usize = initial.iter().map(|p| p.values.len()).sum();
    let running = start(&loaded, &model, &options, &initial, config.threads)?;
    drop(initial);
    let progress = Progress::new(0, config.schedule.total_updates, config.logging_steps);
    progress.note(&format!(
        "ONNX Runtime {} on cpu | {:.1} M parameters | vocabulary {} | {} updates of {} × {} rows",
        loaded.version,
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
        position: Position {
            step: 0,
            best_loss: None,
            data: LoaderState::new(config.seed),
        },
        stop,
        progress,
    };
    trainer.run()
}
