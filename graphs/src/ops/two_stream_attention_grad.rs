//! Derivative of two-stream attention, from its context and log-sum-exp.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use super::two_stream_attention::{TwoStreamAttention, four};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Derivative of [`TwoStreamAttention`] with respect to queries, keys, values and bias.
///
/// Inputs are the context's gradient, the context and the log-sum-exp, then those of the operator.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TwoStreamAttentionGrad {
    pub forward: TwoStreamAttention,
}

/// Inputs before those of the operator itself.
const OWN_INPUTS: usize = 3;

impl Operator for TwoStreamAttentionGrad {
    fn name(&self) -> &'static str {
        "TwoStreamAttentionGrad"
    }

    fn attributes(&self) -> String {
        self.forward.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [gradient, context, sums, forward @ ..] = inputs else {
            return Err("takes a gradient, what the operator gave and its inputs".to_owned());
        };
        let expected = self.forward.check(forward)?;
        if *gradient != forward[0] || *context != forward[0] || **sums != expected {
            return Err("gradient, context or log-sum-exp do not fit".to_owned());
        }
        let [query, key, value, bias] = [0, 1, 2, 5].map(|i| forward[i].clone());
        Ok(vec![query, key, value, Type::new(DType::F32, bias.shape)])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let gradient = inputs[0];
        let forward = &inputs[OWN_INPUTS..];
        let (weights, factors, _) = self.forward.weights(forward);
        let (weights, factors) = (four(weights)?, four(factors)?);
        let (query, key, value, positions, bias) =
            (forward[0], forward[1], forward[2], forward[3], forward[5]);
        let width = query.shape()[2] / bias.shape()[0];
        let first = positions.shape()[1] - query.shape()[0];
        let middle = (bias.shape()[1] - 1) / 2;
        let scale = f64::from(self.forward.scale);

        let mut d_weights = weights.clone();
        let mut d_value = Array::zeros(value.raw_dim());
        for ((b, h, r, k), factor) in factors.indexed_iter() {
            let heads = h * width..(h + 1) * width;
            let sum: f64 = heads
                .clone()
                .map(|d| gradient[[r, b, d]] * value[[k, b, d]])
                .sum();
            d_weights[[b, h, r, k]] = sum * factor;
            for d in heads {
                d_value[[k, b, d]] += weights[[b, h, r, k]] * factor * gradient[[r, b, d]];
            }
        }
        let delta = (&d_weights * &weights).sum_axis(ndarray::Axis(3)); // [B, H, R]
        let mut d_query = Array::zeros(query.raw_dim());
        let mut d_key = Array::zeros(key.raw_dim());
        let mut d_bias = Array::zeros(bias.raw_dim());
        for ((b, h, r, k), weight) in weights.indexed_iter() {
            let d_score = weight * (d_weights[[b, h, r, k]] - delta[[b, h, r]]);
            let distance = positions[[b, k]] - positions[[b, first + r]] + middle as f64;
            d_bias[[h, distance as usize]] += d_score;
            for d in h * width..(h + 1) * width {
                d_query[[r, b, d]] += d_score * scale * key[[k, b, d]];
                d_key[[k, b, d]] += d_score * scale * query[[r, b, d]];
            }
        }
        Ok(vec![d_query, d_key, d_value, d_bias])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        self.forward.emit_as(self.name(), emitter, inputs, outputs)
    }

    fn kernel(&self) -> Kernel {
        Kernel::Own
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;
    use crate::ops::two_stream_attention::tests::{OPS, all_rows, dropped};

    pub fn spec() -> Spec {
        let mut spec = Spec::default();
        for op in OPS {
            for rows in [all_rows(), P.into()] {
                let four = Dim::from(4);
                let example = Example::of(TwoStreamAttentionGrad { forward: op })
                    .floats([rows.clone(), B.into(), four.clone()])
                    .floats([rows.clone(), B.into(), four])
                    .floats([B.into(), Dim::from(2), rows.clone()]);
                spec = spec.example(dropped(op, rows, example).derivative_refused());
            }
        }
        let types = [
            f32([4, 2, 6]),
            f32([4, 2, 6]),
            f32([2, 2, 3]),
            f32([4, 2, 6]),
            f32([3, 2, 6]),
            f32([3, 2, 6]),
            i64([2, 4]),
            bool([2, 3]),
            f32([2, 5]),
        ];
        spec.rejects(
            TwoStreamAttentionGrad { forward: OPS[0] },
            types,
            "log-sum-exp do not fit",
        )
    }
}
