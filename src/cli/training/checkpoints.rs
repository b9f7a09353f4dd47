//! The flags of checkpoints: where, how often, what to go on from.

use crate::train::flags::Effect;
use clap::Args;
use std::path::PathBuf;

/// Checkpoints.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checkpoints")]
pub struct CheckpointArgs {
    /// Keep the checkpoints in this folder
    #[arg(long, value_name = "FOLDER", default_value = "./checkpoints",
        add = Effect::Surroundings(&["checkpoint_dir"]))]
    pub checkpoint_dir: PathBuf,
    /// Updates between two checkpoints; -1 keeps only the best and the last
    #[arg(long, visible_aliases = ["save_steps", "save-steps"], value_name = "N",
        default_value_t = -1, allow_negative_numbers = true,
        add = Effect::Surroundings(&["checkpoint_interval"]))]
    pub checkpoint_interval: i64,
    /// Checkpoints to keep, beside the best and the last; -1 keeps all
    #[arg(long, value_name = "N", default_value_t = -1, allow_negative_numbers = true,
        add = Effect::Surroundings(&["keep_checkpoints"]))]
    pub keep_checkpoints: i64,
    /// Make checkpoints of a third of the size, from which a resumed run starts its moments at zero
    #[arg(long, add = Effect::Surroundings(&[]))]
    pub no_save_optimizer_state: bool,
    /// Seconds for which a checkpoint that could not be written is tried again
    #[arg(long, value_name = "SECONDS", default_value_t = 600, add = Effect::Surroundings(&[]))]
    pub save_retry: u64,
    /// Go on from the latest checkpoint of --checkpoint-dir
    #[arg(long, group = "start", add = Effect::Start)]
    pub resume: bool,
    /// Resume from this checkpoint
    #[arg(long, value_name = "PATH", requires = "resume", add = Effect::Start)]
    pub resume_checkpoint: Option<PathBuf>,
    /// Resume although flags have changed on which updates depend, or start from a model with another
    /// tokenizer than its own
    #[arg(long = "override", requires = "start", add = Effect::Start)]
    pub accept_changes: bool,
}

impl CheckpointArgs {
    /// Checkpoints to keep; all where absent.
    pub fn keep(&self) -> Option<usize> {
        usize::try_from(self.keep_checkpoints).ok()
    }

    /// Updates between two checkpoints; none but the best and the last where absent.
    pub fn interval(&self) -> Option<u64> {
        u64::try_from(self.checkpoint_interval)
            .ok()
            .filter(|&n| n > 0)
    }
}
