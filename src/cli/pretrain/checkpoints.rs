//! The flags of checkpoints: where, how often, what to go on from.

use clap::Args;
use std::path::PathBuf;

/// Checkpoints and starting points.
#[derive(Debug, Args)]
#[command(next_help_heading = "Checkpoints")]
pub struct CheckpointArgs {
    /// Folder of the checkpoints
    #[arg(long, default_value = "./checkpoints")]
    pub checkpoint_dir: PathBuf,
    /// Updates between two checkpoints; -1 keeps only the best and the last
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub checkpoint_interval: i64,
    /// Checkpoints to keep, beside the best and the last; -1 keeps all
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub keep_checkpoints: i64,
    /// Save the optimizer's state with every checkpoint: the default
    #[arg(long, overrides_with = "no_save_optimizer_state")]
    pub save_optimizer_state: bool,
    /// Checkpoints of a third of the size, from which a resumed run starts its moments at zero
    #[arg(long)]
    pub no_save_optimizer_state: bool,
    /// Seconds for which a checkpoint that could not be written is tried again
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    pub save_retry: u64,
    /// Go on from the latest checkpoint of --checkpoint-dir
    #[arg(long, group = "start")]
    pub resume: bool,
    /// The checkpoint to resume from
    #[arg(long, requires = "resume")]
    pub resume_checkpoint: Option<PathBuf>,
    /// Resume although flags have changed that change the run, or start from a model with another
    /// tokenizer than its own
    #[arg(long = "override", requires = "start")]
    pub accept_changes: bool,
    /// Accepted for annotated-mpnet's sake: PyTorch files are read without executing anything in them
    #[arg(long)]
    pub trust_checkpoint: bool,
    /// Model to start from: a HuggingFace folder or name on the Hub, or any other that mpnet import
    /// reads. Its sizes win over the flags'; its positions are lengthened or cut to --max-positions
    #[arg(long, value_name = "MODEL", group = "start")]
    pub hf_model_path: Option<PathBuf>,
}

impl CheckpointArgs {
    /// Updates between two checkpoints; none but the best and the last where absent.
    pub fn interval(&self) -> Option<u64> {
        u64::try_from(self.checkpoint_interval)
            .ok()
            .filter(|&n| n > 0)
    }
}
