//! What the commands that train share: their flags, a group a file, and how a run is started.

pub mod checkpoints;
pub mod config_file;
pub mod logging;
pub mod optimization;
pub mod ranks;

use super::exit::{self, UsageError};
use super::hardware::{HardwareArgs, RecomputeArgs};
use crate::launch::{Launch, Launcher, RESTART, STARTED_BY, children};
use crate::output::OutputError;
use crate::stop::StopSignal;
use crate::train::config::{Operation, TaskConfig, TrainConfig};
use crate::train::execution::Execution;
use crate::train::flags::{Effect, Flag, Flags};
use crate::train::run::{CommandLine, run};
use crate::train::trainer::Ended;
use anyhow::{Context, Result, anyhow};
use clap::{ArgMatches, Args, Command};
use mpnet_plan::Provider;
use mpnet_runtime::collective::{Kind, mpi};
use mpnet_runtime::device::nvidia_count;
use ranks::Devices;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// The flags of every run, whatever it trains.
#[derive(Debug, Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub optimization: optimization::OptimizationArgs,
    #[command(flatten)]
    pub checkpoints: checkpoints::CheckpointArgs,
    #[command(flatten)]
    pub logging: logging::LoggingArgs,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    #[command(flatten)]
    pub recompute: RecomputeArgs,
    #[command(flatten)]
    pub ranks: ranks::RankArgs,
    /// Read flags from this TOML file, by their names; those of the command line win
    #[arg(long, value_name = "FILE.toml", help_heading = "Run", add = Effect::Start)]
    pub config: Option<PathBuf>,
    /// Say what would run, from a short measurement, and leave nothing behind
    #[arg(long, help_heading = "Run", add = Effect::Start)]
    pub dry_run: bool,
}

/// What of a run's settings comes from flags that each command has for itself.
pub struct OwnSettings {
    pub tokenizer: Option<String>,
    pub max_tokens: usize,
    pub data_threads: usize,
    pub start_from: Option<PathBuf>,
    pub max_bad_rows: u64,
}

impl RunArgs {
    /// What runs the graph, as it is asked for.
    pub fn execution(&self) -> Execution {
        Execution {
            gradient_checkpointing: self.recompute.gradient_checkpointing,
            shard_optimizer: self.ranks.shard_optimizer,
            ..self.hardware.execution()
        }
    }

    /// What to go on from, if anything.
    fn resume(&self) -> Option<PathBuf> {
        let checkpoint = self.checkpoints.resume_checkpoint.clone();
        (self.checkpoints.resume).then_some(checkpoint.unwrap_or_default())
    }

    /// How a run is looked after that passes over so many bad rows.
    fn operation(&self, max_bad_rows: u64) -> Operation {
        let checkpoints = &self.checkpoints;
        Operation {
            save_optimizer_state: !checkpoints.no_save_optimizer_state,
            accept_changes: checkpoints.accept_changes,
            max_skipped_updates: self.optimization.max_skipped_updates,
            max_bad_rows,
            dry_run: self.dry_run,
            save_patience: Duration::from_secs(checkpoints.save_retry),
            collective_timeout: self.ranks.timeout(),
            deterministic: self.ranks.deterministic,
            log: self.logging.log(&checkpoints.checkpoint_dir),
        }
    }

    /// The run of `task` that these flags ask for, of which this process is the rank that `launch` says.
    ///
    /// # Errors
    /// Where they contradict each other.
    pub fn config(
        &self,
        task: TaskConfig,
        own: OwnSettings,
        launch: Launch,
    ) -> Result<TrainConfig, UsageError> {
        let RunArgs {
            optimization,
            checkpoints,
            logging,
            ..
        } = self;
        let schedule = optimization.schedule()?;
        let checkpoint_interval = checkpoints.interval();
        let by_tokens = task.max_batch_tokens().is_some();
        Ok(TrainConfig {
            update_freq: match task.part() {
                Some(rows) => optimization.parts(rows, launch.world)?,
                None => optimization.micro_batches(launch.world, by_tokens)?,
            },
            task,
            tokenizer: own.tokenizer,
            max_tokens: own.max_tokens,
            batch_size: optimization.batch_size,
            data_threads: own.data_threads,
            schedule,
            optimizer: optimization.optimizer.optimizer(),
            seed: optimization.seed.seed,
            checkpoint_interval,
            keep_checkpoints: checkpoints.keep(),
            eval_interval: logging.eval_interval(checkpoint_interval, schedule.total_updates),
            logging_steps: logging.logging_steps,
            start_from: own.start_from,
            resume: self.resume(),
            checkpoint_dir: checkpoints.checkpoint_dir.clone(),
            execution: self.execution(),
            launch,
            requested: self.hardware.requested(),
            operation: self.operation(own.max_bad_rows),
        })
    }

    /// The ranks to start, where these flags ask for some and nothing has started this process as one of them.
    ///
    /// # Errors
    /// Where there are no such devices, or there is no way to start ranks on them.
    fn start_ranks(&self, launch: &Launch) -> Result<Option<children::Start>> {
        let Some(devices) = self.ranks.devices else {
            return Ok(None);
        };
        if std::env::var_os(STARTED_BY).is_some() {
            return Ok(None);
        }
        if launch.by != Launcher::None {
            return Err(UsageError(format!(
                "--devices starts ranks of its own, and this is {launch}: leave it out under a launcher"
            ))
            .into());
        }
        let provider = self.hardware.execution().place().provider;
        let count = match devices {
            Devices::Count(count) => count,
            Devices::All => match (provider, nvidia_count()) {
                (Provider::Cuda, Some(count)) if count > 0 => count,
                (provider, _) => {
                    return Err(UsageError(format!(
                        "--devices all counts NVIDIA GPUs, and this run is on {provider}: give a number"
                    ))
                    .into());
                }
            },
        };
        let mut start = children::Start {
            count,
            through: None,
            program: std::env::current_exe().context("finding this program's own file")?,
            arguments: std::env::args_os().skip(1).collect(),
            checkpoints: self.checkpoints.checkpoint_dir.clone(),
            restarts: self.ranks.restarts,
        };
        if Kind::choose(provider, count) == Kind::Mpi {
            // Processes that something else started are no ranks of MPI.
            let launcher = mpi::launcher().with_context(|| {
                format!("--devices {count} on {provider} starts its ranks through MPI's mpiexec")
            })?;
            let count = count.to_string();
            start.through = Some(vec![launcher.into(), "-n".into(), count.into()]);
        }
        Ok(Some(start))
    }
}

/// Every flag of `command`, and what it decides.
pub fn flags_of(command: &Command) -> Flags {
    let flag = |argument: &clap::Arg| {
        let name = argument.get_long().unwrap_or(argument.get_id().as_str());
        Some(Flag {
            name: name.to_owned(),
            effect: *argument.get::<Effect>()?,
        })
    };
    Flags(command.get_arguments().filter_map(flag).collect())
}

/// The matches of `arguments` for `command`, with the flags of the file that `--config` names.
///
/// # Errors
/// Where that cannot be read or holds what is no flag.
pub fn matches(command: &Command, arguments: Vec<OsString>) -> Result<ArgMatches, UsageError> {
    let arguments = config_file::expand(arguments, command)?;
    Ok(command.clone().get_matches_from(arguments))
}

/// Trains as `args` of `command` ask for: as this process, or by ranks that it starts. Returns the exit code, and the run
/// where this process trained to its end.
///
/// # Errors
/// Where anything fails.
pub fn train(
    command: &Command,
    matches: &ArgMatches,
    args: &RunArgs,
    resolve: impl FnOnce(Launch) -> Result<TrainConfig>,
) -> Result<(u8, Option<TrainConfig>)> {
    let launch = args
        .ranks
        .launch(|name| std::env::var(name).ok())
        .map_err(UsageError)?;
    if let Some(start) = args.start_ranks(&launch)? {
        return Ok((children::run(&start, &StopSignal::listen()?)?, None));
    }
    let mut config = resolve(launch)?;
    if std::env::var_os(RESTART).is_some() {
        config.resume = Some(PathBuf::new());
    }
    let command_line = CommandLine {
        flags: flags_of(command),
        in_effect: config_file::effective(command, matches),
    };
    let ended = run(&config, &command_line).map_err(|error| {
        // An error of standard output is known by its type.
        if error.is::<OutputError>() {
            return error;
        }
        anyhow!("{}", command_line.flags.translate(&format!("{error:#}")))
    })?;
    Ok(match ended {
        Ended::Finished => (exit::DONE, Some(config)),
        Ended::Signal(signal) => (128 + signal as u8, None),
    })
}
