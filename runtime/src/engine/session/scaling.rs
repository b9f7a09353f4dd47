//! Dynamic loss scaling: gradients in 16-bit floats are kept above the smallest and below the largest of them.

use crate::engine::{LossScaling, Tensor, TensorData};

/// The first scale: gradients are then usually above the smallest normal 16-bit float.
const FIRST: f32 = 65_536.0;
/// The largest: the scaled loss itself must stay finite.
const LARGEST: f32 = 16_777_216.0;
/// Updates without overflow after which the scale is doubled.
const PATIENCE: u32 = 2_000;

/// The scale and how long it has served.
#[derive(Debug, Clone)]
pub(super) struct LossScaler {
    scale: f32,
    good: u32,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self {
            scale: FIRST,
            good: 0,
        }
    }
}

impl From<LossScaling> for LossScaler {
    fn from(state: LossScaling) -> Self {
        // A scale that no run can reach would overflow for ever or vanish.
        let scale = match state.scale.is_finite() {
            true => state.scale.clamp(1.0, LARGEST),
            false => FIRST,
        };
        Self {
            scale,
            good: state.good,
        }
    }
}

impl LossScaler {
    /// What a checkpoint keeps.
    pub(super) fn state(&self) -> LossScaling {
        LossScaling {
            scale: self.scale,
            good: self.good,
        }
    }

    pub(super) fn scale(&self) -> f32 {
        self.scale
    }

    /// A tensor multiplied by the scale.
    pub(super) fn scaled(&self, tensor: &Tensor) -> Tensor {
        multiplied(tensor, self.scale)
    }

    /// A tensor brought back to its own scale.
    pub(super) fn unscaled(&self, tensor: &Tensor) -> Tensor {
        multiplied(tensor, 1.0 / self.scale)
    }

    /// Takes note of an update whose gradients had that norm; whether it was made, not skipped.
    pub(super) fn update(&mut self, norm: f32) -> bool {
        if !norm.is_finite() {
            self.scale = (self.scale / 2.0).max(1.0);
            self.good = 0;
            tracing::warn!(
                scale = self.scale,
                "the 16-bit gradients overflowed: this update is skipped, the loss's scale halved"
            );
            return false;
        }
        self.good = self.good.saturating_add(1);
        if self.good >= PATIENCE {
            self.scale = (self.scale * 2.0).min(LARGEST);
            self.good = 0;
        }
        true
    }
}

fn multiplied(tensor: &Tensor, factor: f32) -> Tensor {
    let mut tensor = tensor.clone();
    if let TensorData::F32(values) = &mut tensor.data {
        values.iter_mut().for_each(|value| *value *= factor);
    }
    tensor
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overflow_halves_and_patience_doubles() {
        let mut scaling = LossScaler::default();
        assert!(!scaling.update(f32::INFINITY));
        assert!(!scaling.update(f32::NAN));
        assert_eq!(scaling.scale(), FIRST / 4.0);
        for _ in 0..PATIENCE {
            assert!(scaling.update(1.0));
        }
        assert_eq!(scaling.scale(), FIRST / 2.0);
    }

    #[test]
    fn scaling_is_undone() {
        let tensor = Tensor {
            name: "loss".into(),
            shape: vec![1],
            data: TensorData::F32(vec![0.5]),
        };
        let scaling = LossScaler::default();
        let scaled = scaling.scaled(&tensor);
        assert_eq!(scaled.scalar(), Some(FIRST / 2.0));
        assert_eq!(scaling.unscaled(&scaled), tensor);
    }
}
