//! From a run's configuration to its end: everything is checked before anything is spent.

use super::config::TrainConfig;
use super::dry_run::dry_run;
use super::engine::{Running, start_among};
use super::feeder::stalled;
use super::flags::Flags;
use super::group::meet;
use super::log::Log;
use super::log::record::{Start, now};
use super::placement::Placement;
use super::prepare::{Origin, PreparedRun, prepare};
use super::ranks::{Ranks, Same, TEXT, Value, digest};
use super::trainer::{Ended, Trainer};
use super::whole::Whole;
use crate::checkpoint::{self, Lock};
use crate::data::source::RUN_FILES;
use crate::launch::STARTED_BY;
use crate::launch::children::follow_parent;
use crate::launch::output::{Aside, log_file};
use crate::machine::{self, host_name};
use crate::output::complain;
use crate::staging::replace_file;
use crate::stop::StopSignal;
use anyhow::{Context, Result, bail};
use mpnet_graphs::lower::ort_training::Options;
use mpnet_plan::Provider;
use mpnet_runtime::digest::{hexadecimal, sha256_file};
use mpnet_runtime::library::Loaded;
use std::io::Write;
use std::sync::Arc;

/// Tokens of a row that is short for a whole batch of them.
const SHORT_ROW: usize = 8;

/// The settings of a run, beside its checkpoints.
pub const CONFIG_FILE: &str = RUN_FILES[0];

/// What the program that starts a run knows of its flags.
#[derive(Debug, Clone, Default)]
pub struct CommandLine {
    pub flags: Flags,
    /// Every flag in effect, as `config.toml` has it.
    pub in_effect: String,
}

/// Trains as `config` says, which `command_line` asked for: alone, or as one rank of several.
///
/// # Errors
/// Where anything fails; the message says what and where.
pub fn run(config: &TrainConfig, command_line: &CommandLine) -> Result<Ended> {
    let stop = StopSignal::listen()?;
    let launch = config.launch;
    if std::env::var_os(STARTED_BY).is_some() {
        follow_parent();
    }
    let mut aside = Aside::new(&launch).context("keeping this rank's output off the terminal")?;
    let ended = run_rank(&mut config.clone(), command_line, aside.as_mut(), stop);
    if let (Err(error), Some(aside)) = (&ended, &mut aside) {
        let said = format!("rank {} on {}: error: {error:#}", launch.rank, host_name());
        aside.complain(&command_line.flags.translate(&said));
    }
    ended
}

fn run_rank(
    config: &mut TrainConfig,
    command_line: &CommandLine,
    aside: Option<&mut Aside>,
    stop: StopSignal,
) -> Result<Ended> {
    let early_lock = match config.launch.writes() {
        true => look_at_folder(config)?,
        false => None,
    };
    let mut placement = Placement {
        largest_batch: Some(config.largest_batch()),
        ..config.execution.place()
    };
    // The first rank has looked at the folder: what the others read there no longer changes.
    let ranks = meet(config, &mut placement)?;
    let group = Arc::clone(ranks.group());
    let ended = run_among(
        config,
        command_line,
        aside,
        stop,
        early_lock,
        &placement,
        ranks,
    );
    match &ended {
        Ok(_) => group.finish()?,
        Err(error) => group.abort(&command_line.flags.translate(&format!("{error:#}"))),
    }
    ended
}

/// Trains as one of `ranks`, which run where `placement` says.
fn run_among(
    config: &mut TrainConfig,
    command_line: &CommandLine,
    aside: Option<&mut Aside>,
    stop: StopSignal,
    early_lock: Option<Lock>,
    placement: &Placement,
    ranks: Ranks,
) -> Result<Ended> {
    let writes = ranks.writes();
    let alone = ranks.world() == 1;
    let prepared = ranks.while_waiting_for(TEXT, || prepare(config, &command_line.flags));
    let mut prepared = match (prepared, stop.received()) {
        // The signal may be why it failed.
        (Ok(prepared), None) => prepared,
        (Ok(prepared), Some(_)) if !alone => prepared,
        (Err(error), None) => return Err(error),
        (_, Some(signal)) => return Ok(stopped_before(signal)),
    };
    let resumed = matches!(prepared.origin, Origin::Checkpoint(_));
    tracing::debug!("loading ONNX Runtime");
    let loaded = placement.load(config.requested.clone())?;
    if let Some(signal) = stop.received().filter(|_| alone) {
        return Ok(stopped_before(signal));
    }
    tracing::debug!("compiling the model");
    let (mut running, digest) = start_engine(config, &mut prepared, &loaded, placement, &ranks)?;
    check_memory(config, &running)?;
    let next = prepared.position.step + 1;
    ranks.while_waiting_for(TEXT, || {
        let report = |waited| complain(&stalled(next, waited));
        prepared.feeder.wait(&stop, report)
    })?;
    // A fresh run that is stopped from here on leaves a checkpoint; one that is resumed has it.
    let signal = ranks.stopped(&stop, "starting")?;
    if let Some(signal) = signal.filter(|_| resumed || !alone) {
        return Ok(stopped_before(signal));
    }
    if let Some(parameters) = digest {
        let same = same_on_all(config, &prepared, &loaded, &running, parameters)?;
        ranks.compare(&same, "comparing what ranks start from")?;
    }
    if config.operation.dry_run {
        let step = prepared.position.step;
        let feeder = &mut prepared.feeder;
        dry_run(config, &mut running, feeder, &ranks, step, &stop)?;
        return Ok(Ended::Finished);
    }
    let _lock = match early_lock {
        Some(lock) => Some(lock),
        None => writes.then(|| lock_folder(config)).transpose()?,
    };
    if writes {
        keep_settings(config, &command_line.in_effect)?;
    }
    if let Some(aside) = aside {
        let path = log_file(&config.checkpoint_dir, config.launch.rank);
        aside
            .keep_in(&path)
            .with_context(|| format!("writing {}", path.display()))?;
    }
    let record = start_record(config, &prepared, &loaded, &running)?;
    let log = Log::new(
        &config.checkpoint_dir,
        &config.operation.log,
        record,
        !resumed,
        writes,
    );
    let peak = placement.peak();
    let mut trainer = Trainer::new(config, prepared, running, ranks, log, peak, stop);
    let ended = trainer.run();
    if let Err(error) = &ended {
        trainer.log.failure(error);
    }
    ended
}

/// What must be the same on all ranks before they train.
fn same_on_all(
    config: &TrainConfig,
    prepared: &PreparedRun,
    loaded: &Loaded,
    running: &Running,
    parameters: String,
) -> Result<Vec<Same>> {
    let program = std::env::current_exe().and_then(|path| sha256_file(&path));
    let program = program.context("reading this program's own file")?;
    let first = prepared.feeder.first();
    let first = first.and_then(|update| update.counts.digest.map(hexadecimal));
    let placement = &running.placement;
    let text = |what, text: String| Same {
        what,
        value: Value::Text(text),
    };
    Ok(vec![
        text(
            "another build",
            format!("{} {}", env!("CARGO_PKG_VERSION"), &program[..16]),
        ),
        text(
            "another ONNX Runtime",
            format!("{}, {:?}", loaded.version, placement.engine),
        ),
        text(
            "another arithmetic",
            format!("{} on {}", placement.precision, placement.provider),
        ),
        Same {
            what: "other settings",
            value: Value::Json(config.saved()?),
        },
        text(
            "another start",
            format!("update {}", prepared.position.step),
        ),
        Same {
            what: "another first batch (is the text the same there?)",
            value: Value::Digest(first.unwrap_or_default()),
        },
        Same {
            what: "other parameters",
            value: Value::Digest(parameters),
        },
    ])
}

/// How the run ends if a signal came before it trained.
fn stopped_before(signal: i32) -> Ended {
    complain(&format!(
        "stopped by signal {signal} before training began; there is nothing to save"
    ));
    Ended::Signal(signal)
}

/// Checks that checkpoints can be written. A folder that is there already is locked at once: another run
/// may be using it, and what a run was killed over may be what is to be resumed.
fn look_at_folder(config: &TrainConfig) -> Result<Option<Lock>> {
    checkpoint::check_writable(&config.checkpoint_dir).with_context(|| keeping(config))?;
    if !config.checkpoint_dir.is_dir() {
        return Ok(None);
    }
    let lock = lock_folder(config)?;
    warn_of_an_earlier_run(config);
    Ok(Some(lock))
}

fn lock_folder(config: &TrainConfig) -> Result<Lock> {
    checkpoint::prepare(&config.checkpoint_dir).with_context(|| keeping(config))
}

fn keeping(config: &TrainConfig) -> String {
    format!(
        "keeping checkpoints in {} (--checkpoint-dir)",
        config.checkpoint_dir.display()
    )
}

/// Compiles the model and starts it with the parameters of where the run begins. Returns the digest of these, where
/// there are ranks to compare it with.
fn start_engine(
    config: &TrainConfig,
    prepared: &mut PreparedRun,
    loaded: &Loaded,
    placement: &Placement,
    ranks: &Ranks,
) -> Result<(Running, Option<String>)> {
    let options = Options {
        optimizer: config.optimizer,
        gradient_checkpointing: placement.gradient_checkpointing,
        expose: false,
    };
    let origin = std::mem::replace(&mut prepared.origin, Origin::Fresh);
    let (initial, optimizer) =
        origin.parameters(&prepared.model, prepared.task.as_ref(), config.seed)?;
    let digest = (ranks.world() > 1).then(|| digest(&initial));
    let (whole, initial) = Whole::part(initial, prepared.task.as_ref());
    prepared.whole = whole;
    let group = ranks.group();
    let mut running = start_among(loaded, &prepared.task, &options, &initial, placement, group)?;
    if let Some(state) = optimizer {
        running
            .engine
            .set_optimizer_state(prepared.whole.trained_state(state))?;
    }
    Ok((running, digest))
}

/// The first record of the log.
fn start_record(
    config: &TrainConfig,
    prepared: &PreparedRun,
    loaded: &Loaded,
    running: &Running,
) -> Result<Start> {
    let parameters = prepared.task.parameters();
    Ok(Start {
        step: prepared.position.step,
        time: now(),
        total_updates: config.schedule.total_updates,
        parameters: parameters.iter().map(|p| p.len() as u64).sum(),
        vocabulary: prepared.model.vocab_size as u64,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        onnxruntime: loaded.version.to_string(),
        execution: running.placement.to_string(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        processors: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
        text: prepared.text.clone(),
        unit: config.task.unit(),
        config: config.saved()?,
    })
}

/// Refuses batches that this machine's memory cannot hold however short their rows are. Those of a GPU
/// are refused by its provider.
fn check_memory(config: &TrainConfig, running: &Running) -> Result<()> {
    let (Provider::Cpu, Some(memory)) = (running.placement.provider, machine::total_memory())
    else {
        return Ok(());
    };
    let length = SHORT_ROW.min(config.max_tokens);
    let (rows, flags) = match config.task.max_batch_tokens() {
        Some(tokens) => (tokens / length, format!("--max-batch-tokens {tokens}")),
        None => (
            config.rows_at_once(),
            match config.task.part() {
                Some(rows) => format!("--mini-batch-size {rows}"),
                None => format!("--batch-size {}", config.batch_size),
            },
        ),
    };
    let needed = running.step_memory(&config.batch_sizes(rows, length));
    if needed > memory {
        let gb = |bytes: u64| bytes as f64 / 1e9;
        bail!(
            "{flags} takes {:.0} GB or more for the activations of a micro-batch, and there are \
             {:.0} GB of memory for this program: make it smaller, and --update-freq larger for as many rows an update (another update all the same: \
             the rows of a micro-batch predict as many tokens as its shortest one)",
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
