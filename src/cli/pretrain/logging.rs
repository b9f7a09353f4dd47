//! The flags of what a run says, and to whom.

use clap::Args;
use std::path::PathBuf;

/// Logging and validation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LoggingArgs {
    /// Folder for TensorBoard
    #[arg(long)]
    pub tensorboard_log_dir: Option<PathBuf>,
    /// Updates between two log lines
    #[arg(long, default_value_t = 25)]
    pub logging_steps: u64,
    /// Updates between two validations [default: the checkpoint interval, else 5000]
    #[arg(long, allow_negative_numbers = true)]
    pub eval_interval_steps: Option<i64>,
    /// Log everything
    #[arg(long)]
    pub debug: bool,
    /// Log to Weights & Biases
    #[arg(long)]
    pub wandb: bool,
    #[arg(long, default_value = "annotated-mpnet")]
    pub wandb_project: String,
    #[arg(long)]
    pub wandb_name: Option<String>,
    #[arg(long)]
    pub wandb_id: Option<String>,
    #[arg(long)]
    pub wandb_watch: bool,
}

impl LoggingArgs {
    /// Updates between two validations, for a checkpoint interval and a length of the run.
    pub fn eval_interval(&self, checkpoints: Option<u64>, total_updates: u64) -> u64 {
        match self.eval_interval_steps {
            Some(n) => u64::try_from(n)
                .ok()
                .filter(|&n| n > 0)
                .unwrap_or(total_updates),
            None => checkpoints.unwrap_or(5000),
        }
    }
}
