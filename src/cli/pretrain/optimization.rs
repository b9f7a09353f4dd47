//! The flags of the updates: how many, of what size, how fast.

use super::range::{below_one, not_negative, positive, positive_count};
use crate::cli::exit::UsageError;
use crate::train::schedule::Schedule;
use clap::Args;
use mpnet_graphs::optimizer::adamw::AdamW;

/// Batch, schedule and optimizer.
#[derive(Debug, Args)]
#[command(next_help_heading = "Training")]
pub struct OptimizationArgs {
    /// Updates to make
    #[arg(long, default_value_t = 10_000)]
    pub total_updates: u64,
    /// Updates until the peak learning rate [default: a tenth of --total-updates]
    #[arg(long)]
    pub warmup_updates: Option<u64>,
    /// Rows of a micro-batch
    #[arg(long, default_value_t = 16)]
    pub batch_size: usize,
    /// Micro-batches of an update
    #[arg(long, default_value_t = 8)]
    pub update_freq: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 6e-4)]
    pub lr: f64,
    /// Learning rate after the last update
    #[arg(long, default_value_t = 0.0)]
    pub end_learning_rate: f64,
    /// Power of the decay
    #[arg(long, default_value_t = 1.0)]
    pub power: f64,
    /// Decay of the mean of the gradient
    #[arg(long, default_value_t = 0.9)]
    pub beta1: f32,
    /// Decay of the mean of the squared gradient
    #[arg(long, default_value_t = 0.98)]
    pub beta2: f32,
    /// Added to the root of the second moment
    #[arg(long, default_value_t = 1e-6)]
    pub adam_eps: f32,
    /// Weight decay of matrices and embeddings
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f32,
    /// Largest norm of all gradients together; 0 clips nothing
    #[arg(long, default_value_t = 1.0)]
    pub clip_grad_norm: f32,
    /// Decides initial values, order, masking and dropout
    #[arg(long, default_value_t = 12_345)]
    pub seed: u64,
    /// Stop after this many updates in a row whose loss or gradient is not finite
    #[arg(long, default_value_t = 20)]
    pub max_skipped_updates: u64,
    /// Accepted for annotated-mpnet's sake: the graph is always compiled
    #[arg(long)]
    pub compile: bool,
}

impl OptimizationArgs {
    /// The schedule and the optimizer.
    ///
    /// # Errors
    /// Where a number is out of its range.
    pub fn resolve(&self) -> Result<(Schedule, AdamW), UsageError> {
        let total = positive_count("--total-updates", self.total_updates)?;
        positive_count("--batch-size", self.batch_size as u64)?;
        positive_count("--update-freq", self.update_freq as u64)?;
        let warmup = self.warmup_updates.unwrap_or(total / 10);
        if warmup > total {
            tracing::warn!(
                "--warmup-updates {warmup} is above --total-updates {total}: the run ends before its \
                 peak learning rate"
            );
        }
        let schedule = Schedule {
            peak: positive("--lr", self.lr)?,
            end: not_negative("--end-learning-rate", self.end_learning_rate)?,
            power: positive("--power", self.power)?,
            warmup_updates: warmup,
            total_updates: total,
        };
        let optimizer = AdamW {
            beta1: below_one("--beta1", self.beta1)?,
            beta2: below_one("--beta2", self.beta2)?,
            epsilon: not_negative("--adam-eps", self.adam_eps)?,
            weight_decay: not_negative("--weight-decay", self.weight_decay)?,
            clip_grad_norm: not_negative("--clip-grad-norm", self.clip_grad_norm)?,
        };
        Ok((schedule, optimizer))
    }
}
