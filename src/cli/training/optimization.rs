//! The flags of the updates: how many, of what size, how fast.

use crate::cli::common::SeedArgs;
use crate::cli::exit::UsageError;
use crate::cli::optimizer::OptimizerArgs;
use crate::cli::values::{count, not_negative, positive};
use crate::train::flags::Effect;
use crate::train::schedule::{Decay, Schedule};
use clap::{Args, ValueEnum};

/// Batch, schedule and optimizer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub struct OptimizationArgs {
    /// Updates to make
    #[arg(long, value_name = "N", default_value_t = 10_000, value_parser = count::<u64>,
        add = Effect::Updates(&["schedule.total_updates"]))]
    pub total_updates: u64,
    /// Updates until the peak learning rate [default: a tenth of --total-updates]
    #[arg(long, visible_alias = "warmup_steps", value_name = "N",
        add = Effect::Updates(&["schedule.warmup_updates"]))]
    pub warmup_updates: Option<u64>,
    /// Rows of a micro-batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count::<usize>,
        add = Effect::Updates(&["batch_size"]))]
    pub batch_size: usize,
    /// Micro-batches of an update, on each rank
    #[arg(long, visible_alias = "gc_steps", value_name = "N", default_value_t = 8,
        value_parser = count::<usize>, add = Effect::Updates(&["update_freq"]))]
    pub update_freq: usize,
    /// Rows of an update, those of all ranks together, in place of --update-freq: the same run on any number of ranks
    #[arg(long, value_name = "N", value_parser = count::<usize>, add = Effect::Updates(&["update_freq"]))]
    pub global_batch_size: Option<usize>,
    /// Peak learning rate
    #[arg(long, value_name = "RATE", default_value_t = 6e-4, value_parser = positive,
        add = Effect::Updates(&["schedule.peak"]))]
    pub lr: f64,
    /// Let the learning rate go down like this after the warm-up
    #[arg(long, value_enum, value_name = "SCHEDULE", default_value_t, add = Effect::Updates(&["schedule.decay"]))]
    pub lr_scheduler: Decay,
    /// Learning rate of the last update [default: 0]
    #[arg(long, visible_alias = "end_lr", value_name = "RATE", value_parser = not_negative::<f64>,
        add = Effect::Updates(&["schedule.end"]))]
    pub end_learning_rate: Option<f64>,
    /// Power of the polynomial decay [default: 1]
    #[arg(long, value_name = "NUMBER", value_parser = positive,
        add = Effect::Updates(&["schedule.power"]))]
    pub power: Option<f64>,
    #[command(flatten)]
    pub optimizer: OptimizerArgs,
    #[command(flatten)]
    pub seed: SeedArgs,
    /// Stop after this many updates in a row whose loss or gradient is not finite
    #[arg(long, value_name = "N", default_value_t = 20, add = Effect::Surroundings(&[]))]
    pub max_skipped_updates: u64,
}

impl OptimizationArgs {
    /// Micro-batches of an update, those of `world` ranks together; `by_tokens` is whether batches are cut by tokens.
    ///
    /// # Errors
    /// Where --global-batch-size is no number of whole micro-batches for each rank.
    pub fn micro_batches(&self, world: usize, by_tokens: bool) -> Result<usize, UsageError> {
        let too_many = || UsageError(format!("--update-freq {} is too large", self.update_freq));
        let Some(rows) = self.global_batch_size else {
            return self.update_freq.checked_mul(world).ok_or_else(too_many);
        };
        if by_tokens {
            return Err(UsageError(format!(
                "--global-batch-size {rows} counts rows, and --max-batch-tokens leaves their number open: give \
                 --update-freq instead"
            )));
        }
        let size = self.batch_size;
        let unit = size.checked_mul(world).ok_or_else(too_many)?;
        if !rows.is_multiple_of(unit) {
            let below = rows / unit * unit;
            let near = match below {
                0 => format!("{unit}"),
                below => format!("{below} or {}", below.saturating_add(unit)),
            };
            return Err(UsageError(format!(
                "--global-batch-size {rows} is not a multiple of --batch-size {size} × {world} ranks: give {near}, or \
                 another --batch-size"
            )));
        }
        Ok(rows / size)
    }

    /// Parts of `rows` rows that a batch has, which are the micro-batches of an update, shared by `world` ranks.
    ///
    /// # Errors
    /// Where that is no number of parts for each rank, or an update would be of several batches.
    pub fn parts(&self, rows: usize, world: usize) -> Result<usize, UsageError> {
        let size = self.batch_size;
        if self.update_freq != 1 || self.global_batch_size.is_some() {
            return Err(UsageError(
                "with --mini-batch-size an update is one batch of --batch-size rows, of all ranks together: leave out \
                 --update-freq and --global-batch-size, and raise --batch-size"
                    .into(),
            ));
        }
        let parts = size.div_ceil(rows);
        if !parts.is_multiple_of(world) {
            return Err(UsageError(format!(
                "--batch-size {size} is {parts} parts of --mini-batch-size {rows} rows, which {world} ranks cannot share: \
                 make them a multiple of {world}"
            )));
        }
        Ok(parts)
    }

    /// The schedule.
    ///
    /// # Errors
    /// Where a flag is given that the decay does not read.
    pub fn schedule(&self) -> Result<Schedule, UsageError> {
        let (total, decay) = (self.total_updates, self.lr_scheduler);
        let warmup = self.warmup_updates.unwrap_or(total / 10);
        if warmup > total {
            tracing::warn!(
                "--warmup-updates {warmup} is above --total-updates {total}: the run ends before its \
                 peak learning rate"
            );
        }
        let read = decay.reads();
        for (flag, given, read) in [
            ("--power", self.power.is_some(), read.power),
            (
                "--end-learning-rate",
                self.end_learning_rate.is_some(),
                read.end,
            ),
        ] {
            if given && !read {
                let name = decay.to_possible_value();
                let name = name.as_ref().map_or("", |name| name.get_name());
                return Err(UsageError(format!(
                    "{flag} has no effect with --lr-scheduler {name}: leave it out"
                )));
            }
        }
        Ok(Schedule {
            peak: self.lr,
            end: self.end_learning_rate.unwrap_or(0.0),
            power: self.power.unwrap_or(1.0),
            warmup_updates: warmup,
            total_updates: total,
            decay,
        })
    }
}
