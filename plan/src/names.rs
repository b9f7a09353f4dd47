//! How models call the values that both sides know by their meaning.

/// Input of a training step, f32 `[1]`: what the loss is multiplied by before its gradients are taken.
pub const LOSS_SCALE: &str = "loss_scale";
/// Output of a training step: the loss, multiplied by [`LOSS_SCALE`].
pub const LOSS: &str = "loss";
/// The norm of the gradients gathered so far: an output of the training API's step and of the optimizer.
pub const GRADIENT_NORM: &str = "gradient_norm";

/// Input of the optimizer: `lr / (1 − β1^t)`.
pub const STEP_SIZE: &str = "step_size";
/// Input of the optimizer: `1 − lr · weight_decay`.
pub const DECAY: &str = "decay";
/// Input of the optimizer: `1 / √(1 − β2^t)`.
pub const SECOND_CORRECTION: &str = "second_correction";
/// Input of the optimizer: what the gradients are to be multiplied by, 1 or the inverse of the loss's scaling.
pub const GRADIENT_SCALE: &str = "gradient_scale";
/// Sum of squares of the gradients: output of the model that takes a rank's part of them, and, over all ranks, input of
/// an optimizer that updates a part.
pub const SQUARES: &str = "squares";
/// Input of the model that clears gradients: what it fills them with, 0.
pub const ZERO: &str = "zero";

/// Input of the model that copies one vector.
pub const COPY_SOURCE: &str = "source";
/// Output of the model that copies one vector.
pub const COPY_TARGET: &str = "target";

/// Output of a training step that exposes the gradient of `parameter`.
pub fn exposed_gradient(parameter: &str) -> String {
    format!("grad.{parameter}")
}
