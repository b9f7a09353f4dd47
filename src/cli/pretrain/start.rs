//! The flags of what a run starts from, and those that annotated-mpnet has and this program need not.

use crate::train::flags::Effect;
use clap::Args;
use std::path::PathBuf;

/// Starting points and accepted flags.
#[derive(Debug, Args)]
#[command(next_help_heading = "Starting point")]
pub struct StartArgs {
    /// Start from the weights of this model: a HuggingFace folder or name on the Hub, or any other that
    /// mpnet import reads
    ///
    /// Its sizes win over the flags'; its positions are lengthened or cut to --max-positions. The name of
    /// the flag is annotated-mpnet's.
    #[arg(long, value_name = "MODEL", group = "start",
        add = Effect::Surroundings(&["start_from"]))]
    pub hf_model_path: Option<PathBuf>,
    /// Save the optimizer's state with every checkpoint: the default
    #[arg(long, overrides_with = "no_save_optimizer_state", add = Effect::Surroundings(&[]))]
    pub save_optimizer_state: bool,
    /// Accepted for annotated-mpnet's sake: PyTorch files are read without executing anything in them
    #[arg(long, hide = true, add = Effect::Start)]
    pub trust_checkpoint: bool,
    /// Accepted for annotated-mpnet's sake: gradients are not sent
    #[arg(long, hide = true, add = Effect::Start)]
    pub wandb_watch: bool,
    /// Accepted for annotated-mpnet's sake: the graph is always compiled
    #[arg(long, hide = true, add = Effect::Start)]
    pub compile: bool,
}

impl StartArgs {
    /// Says of flags of annotated-mpnet's that something else would be expected of.
    pub fn tell_of_no_effect(&self) {
        let flags = [
            (
                self.trust_checkpoint,
                "--trust-checkpoint has no effect: no checkpoint is executed, so none needs trust",
            ),
            (
                self.wandb_watch,
                "--wandb-watch has no effect: of the gradients the norm is sent, with the rest",
            ),
        ];
        for (_, text) in flags.into_iter().filter(|(used, _)| *used) {
            tracing::warn!("{text}");
        }
    }
}
