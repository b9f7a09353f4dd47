//! `trainer_state.json`.

use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::LossScaling;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of the checkpoint format written by this program; from 2 on there is a `SHA256SUMS`.
pub const FORMAT_VERSION: u64 = 2;

/// A parameter behind the model's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadParameter {
    pub name: String,
    pub shape: Vec<usize>,
}

/// Everything of a checkpoint that is not a tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainerState {
    pub format_version: u64,
    pub model: ModelConfig,
    /// What a task trains beside the model's own parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub head: Vec<HeadParameter>,
    pub config: serde_json::Value,
    pub step: u64,
    pub best_loss: Option<f64>,
    /// What validations are compared by, where that is not the loss: that of the best so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_figure: Option<f64>,
    /// The last step whose validation loss was taken.
    #[serde(default)]
    pub validated: Option<u64>,
    /// Null where it has its own file.
    #[serde(default)]
    pub data: serde_json::Value,
    pub seed: u64,
    /// Updates of the optimizer, fewer than `step` where some were skipped; as many where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optimizer_step: Option<i64>,
    /// Loss scaling of 16-bit gradients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scaling: Option<LossScaling>,
    /// SHA-256 of each tensor file and of the data state, in hexadecimal.
    pub sha256: BTreeMap<String, String>,
}
