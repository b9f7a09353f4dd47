//! The optimizer's hyper-parameters.

use serde::{Deserialize, Serialize};

/// Hyper-parameters of AdamW that do not change during a run; the learning rate comes with every update.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AdamW {
    /// Decay of the running mean of the gradient.
    pub beta1: f32,
    /// Decay of the running mean of its square.
    pub beta2: f32,
    /// Added to the denominator.
    pub epsilon: f32,
    /// Share of a parameter that an update with learning rate 1 takes away.
    pub weight_decay: f32,
    /// Largest norm of all gradients together; 0 leaves them as they are.
    pub clip_grad_norm: f32,
}

/// annotated-mpnet's defaults.
impl Default for AdamW {
    fn default() -> Self {
        Self {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            weight_decay: 0.01,
            clip_grad_norm: 1.0,
        }
    }
}
