//! The flags of the optimizer.

use super::values::{below_one, not_negative};
use crate::train::flags::Effect;
use clap::Args;
use mpnet_graphs::optimizer::adamw::AdamW;

/// AdamW and its clipping.
#[derive(Debug, Clone, Args)]
pub struct OptimizerArgs {
    /// Decay of the mean of the gradient
    #[arg(long, value_name = "SHARE", default_value_t = AdamW::default().beta1,
        value_parser = below_one, add = Effect::Updates(&["optimizer.beta1"]))]
    pub beta1: f32,
    /// Decay of the mean of the squared gradient
    #[arg(long, value_name = "SHARE", default_value_t = AdamW::default().beta2,
        value_parser = below_one, add = Effect::Updates(&["optimizer.beta2"]))]
    pub beta2: f32,
    /// Add this to the root of the second moment
    #[arg(long, value_name = "NUMBER", default_value_t = AdamW::default().epsilon,
        value_parser = not_negative::<f32>, add = Effect::Updates(&["optimizer.epsilon"]))]
    pub adam_eps: f32,
    /// Weight decay of matrices and embeddings
    #[arg(long, visible_alias = "wd", value_name = "NUMBER",
        default_value_t = AdamW::default().weight_decay, value_parser = not_negative::<f32>,
        add = Effect::Updates(&["optimizer.weight_decay"]))]
    pub weight_decay: f32,
    /// Largest norm of all gradients together; 0 clips nothing
    #[arg(long, visible_alias = "grad_clip", value_name = "NORM",
        default_value_t = AdamW::default().clip_grad_norm, value_parser = not_negative::<f32>,
        add = Effect::Updates(&["optimizer.clip_grad_norm"]))]
    pub clip_grad_norm: f32,
}

impl OptimizerArgs {
    /// The optimizer.
    pub fn optimizer(&self) -> AdamW {
        AdamW {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.adam_eps,
            weight_decay: self.weight_decay,
            clip_grad_norm: self.clip_grad_norm,
        }
    }
}
