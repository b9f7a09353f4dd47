//! The flags of what a run says, and to whom.

use crate::train::log::wandb::Wandb;
use crate::train::log::{LogConfig, LogFormat};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// `--log-format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormatChoice {
    Text,
    Json,
}

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
    /// What is printed: lines for people, or a JSON object a line
    #[arg(long, value_enum, default_value_t = LogFormatChoice::Text)]
    pub log_format: LogFormatChoice,
    /// Send the TensorBoard files to Weights & Biases, through its own client
    #[arg(long)]
    pub wandb: bool,
    /// Project there
    #[arg(long, default_value = "annotated-mpnet")]
    pub wandb_project: String,
    /// Name of the run there
    #[arg(long)]
    pub wandb_name: Option<String>,
    /// Id of the run there [default: from --checkpoint-dir]
    #[arg(long)]
    pub wandb_id: Option<String>,
    /// Accepted for annotated-mpnet's sake: gradients are not sent
    #[arg(long)]
    pub wandb_watch: bool,
}

impl LoggingArgs {
    /// Where a run logs that keeps its checkpoints in `checkpoints`.
    pub fn log(&self, checkpoints: &Path) -> LogConfig {
        let default = || checkpoints.join("tensorboard");
        let tensorboard = match (&self.tensorboard_log_dir, self.wandb) {
            (Some(folder), _) => Some(folder.clone()),
            (None, true) => Some(default()),
            (None, false) => None,
        };
        // Without an id a resumed run would be another run there.
        let id = || {
            let name = std::path::absolute(checkpoints).unwrap_or_else(|_| checkpoints.to_owned());
            let sum = mpnet_runtime::digest::sha256(&*name.to_string_lossy());
            sum.chars().take(8).collect()
        };
        LogConfig {
            format: match self.log_format {
                LogFormatChoice::Text => LogFormat::Text,
                LogFormatChoice::Json => LogFormat::Json,
            },
            tensorboard,
            wandb: self.wandb.then(|| Wandb {
                project: self.wandb_project.clone(),
                name: self.wandb_name.clone(),
                id: self.wandb_id.clone().unwrap_or_else(id),
            }),
        }
    }

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
