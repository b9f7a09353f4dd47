//! The flags of what a run says, and to whom.

use crate::cli::values::count;
use crate::train::flags::Effect;
use crate::train::log::wandb::Wandb;
use crate::train::log::{LogConfig, LogFormat};
use clap::Args;
use std::path::{Path, PathBuf};

/// Logging and validation.
#[derive(Debug, Args)]
#[command(next_help_heading = "Logging")]
pub struct LoggingArgs {
    /// Write TensorBoard's files to this folder
    #[arg(long, visible_alias = "log_dir", value_name = "FOLDER",
        add = Effect::Surroundings(&[]))]
    pub tensorboard_log_dir: Option<PathBuf>,
    /// Updates between two log lines
    #[arg(long, alias = "logging_steps", value_name = "N", default_value_t = 25,
        value_parser = count::<u64>, add = Effect::Surroundings(&["logging_steps"]))]
    pub logging_steps: u64,
    /// Updates between two validations; -1 validates at the end alone [default: the checkpoint interval,
    /// else 5000]
    #[arg(long, value_name = "N", allow_negative_numbers = true,
        add = Effect::Surroundings(&["eval_interval"]))]
    pub eval_interval_steps: Option<i64>,
    /// Log everything
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub debug: bool,
    /// Print like this
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t, add = Effect::Surroundings(&[]))]
    pub log_format: LogFormat,
    /// Send the TensorBoard files to Weights & Biases, through its own client
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub wandb: bool,
    /// Project there
    #[arg(long, value_name = "NAME", default_value = "annotated-mpnet",
        add = Effect::Surroundings(&[]))]
    pub wandb_project: String,
    /// Name of the run there
    #[arg(long, value_name = "NAME", add = Effect::Surroundings(&[]))]
    pub wandb_name: Option<String>,
    /// Id of the run there [default: from --checkpoint-dir]
    #[arg(long, value_name = "ID", add = Effect::Surroundings(&[]))]
    pub wandb_id: Option<String>,
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
            format: self.log_format,
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
