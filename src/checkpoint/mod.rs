//! Native checkpoints: a folder `checkpoint-<step>` of safetensors and JSON, written whole or not
//! at all, and checked before anything in it is believed.

mod data_file;
mod error;
mod lock;
mod pointer;
mod read;
mod state;
mod sums;
mod write;

pub use error::CheckpointError;
pub use lock::Lock;
pub use pointer::{Pointer, candidates, resolve, set_pointer};
pub use read::{load, load_model, load_parameters, read_checked_state, read_state, verify};
pub use state::TrainerState;
pub use write::{check_writable, prepare, prune, remove, save};

use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use std::path::PathBuf;

/// Result of this module.
pub type Result<T, E = CheckpointError> = std::result::Result<T, E>;

/// Parameters, native names.
pub const MODEL_FILE: &str = "model.safetensors";
/// Moments: `exp_avg.<name>` and `exp_avg_sq.<name>`.
pub const OPTIMIZER_FILE: &str = "optimizer.safetensors";
/// Where the data path stands, compressed.
pub const DATA_FILE: &str = "data_state.json.zst";
/// Everything else: [`TrainerState`].
pub const STATE_FILE: &str = "trainer_state.json";
/// SHA-256 of every file of a checkpoint, in the form of `sha256sum`.
pub const SUMS_FILE: &str = "SHA256SUMS";
/// Folder of the tokenizer's files.
pub const TOKENIZER_FOLDER: &str = "tokenizer";

const FIRST_MOMENT: &str = "exp_avg.";
const SECOND_MOMENT: &str = "exp_avg_sq.";

/// A run's state after an update.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    pub model: ModelConfig,
    /// The run's settings.
    pub config: serde_json::Value,
    /// Updates made.
    pub step: u64,
    /// Validation loss of the best checkpoint so far, in the units of its task.
    pub best_loss: Option<f64>,
    /// What validations are compared by, where that is not the loss: that of the best so far.
    pub best_figure: Option<f64>,
    /// The last step whose validation loss was taken.
    pub validated: Option<u64>,
    /// Where the data path stands.
    pub data: serde_json::Value,
    pub seed: u64,
    /// In the order of the model's parameters, behind which stand those of a task's head.
    pub parameters: Vec<NamedArray>,
    pub optimizer: Option<OptimizerState>,
    /// Folder of the tokenizer to keep beside the parameters.
    pub tokenizer: Option<PathBuf>,
}

/// The folder name of a checkpoint.
pub fn folder_name(step: u64) -> String {
    format!("checkpoint-{step}")
}

/// The step in a checkpoint's folder name.
pub fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoint-")?.parse().ok()
}
