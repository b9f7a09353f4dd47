//! Layer normalization over the last dimension, with the statistics its derivative reads.

use super::layer_norm_grad::LayerNormGrad;
use super::layer_norm_output::LayerNormOutput;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Layer normalization over the last dimension, with the statistics its derivative reads.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNorm {
    pub epsilon: f32,
}

impl Graph {
    /// `(x − mean) / √(variance + epsilon) · scale + bias` over the last dimension.
    ///
    /// # Errors
    /// Where scale and bias are not as long as that dimension.
    pub fn layer_norm(
        &mut self,
        x: ValueId,
        scale: ValueId,
        bias: ValueId,
        epsilon: f32,
    ) -> Result<ValueId, GraphError> {
        self.apply1(LayerNorm { epsilon }, &[x, scale, bias])
    }
}

impl Operator for LayerNorm {
    fn name(&self) -> &'static str {
        "LayerNorm"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x, scale, bias] = inputs else {
            return Err(format!("takes 3 inputs, not {}", inputs.len()));
        };
        let Some((last, rows)) = x.shape.split_last() else {
            return Err("takes a tensor with dimensions".to_owned());
        };
        if !x.dtype.is_float() || inputs.iter().any(|t| t.dtype != x.dtype) {
            return Err("takes floats of one type".to_owned());
        }
        if scale.shape != [last.clone()] || bias.shape != [last.clone()] {
            return Err(format!("scale and bias must be [{last}]"));
        }
        let statistics = Type::f32(rows.iter().cloned().chain([Dim::from(1)]));
        Ok(vec![(*x).clone(), statistics.clone(), statistics])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let inputs = [
            at.grad()?,
            at.input(0),
            at.input(1),
            at.output(1),
            at.output(2),
        ];
        let grads = graph.apply(LayerNormGrad, &inputs)?;
        Ok(grads.into_iter().map(Some).collect())
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let last = Axis(inputs[0].ndim() - 1);
        let mean = inputs[0]
            .mean_axis(last)
            .ok_or("empty dimension")?
            .insert_axis(last);
        let centred = inputs[0] - &mean;
        let variance = (&centred * &centred)
            .mean_axis(last)
            .ok_or("empty dimension")?;
        let inverse = variance
            .mapv(|v| 1.0 / (v + f64::from(self.epsilon)).sqrt())
            .insert_axis(last);
        let y = &centred * &inverse * inputs[1] + inputs[2];
        Ok(vec![y, mean, inverse])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard_with(
            "LayerNormalization",
            inputs,
            outputs,
            [
                ("axis", Attribute::Int(-1)),
                ("epsilon", Attribute::Float(self.epsilon)),
                ("stash_type", Attribute::Int(1)),
            ],
        );
        Ok(())
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let &[x, scale, bias] = inputs else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes 3 inputs, not {}", inputs.len()),
            });
        };
        let output = LayerNormOutput {
            epsilon: self.epsilon,
        };
        let y = graph.apply1(output, &[x, scale, bias])?;
        let last = graph.ty(x).rank().saturating_sub(1);
        let size = graph.ty(x).shape.get(last).and_then(Dim::as_const);
        let Some(size) = size else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: "the normalised dimension has no fixed size".to_owned(),
            });
        };
        let share = 1.0 / size as f64;
        let sum = graph.reduce_sum(x, &[last], true)?;
        let mean = graph.scale(sum, share)?; // [.., 1]
        let centred = graph.sub(x, mean)?;
        let square = graph.mul(centred, centred)?;
        let sum = graph.reduce_sum(square, &[last], true)?;
        let variance = graph.scale(sum, share)?;
        let epsilon = graph.scalar_like(x, f64::from(self.epsilon))?;
        let variance = graph.add(variance, epsilon)?;
        let deviation = graph.sqrt(variance)?;
        let one = graph.scalar_like(x, 1.0)?;
        let inverse = graph.div(one, deviation)?; // [.., 1]
        Ok(Some(vec![y, mean, inverse]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let op = LayerNorm { epsilon: 0.25 };
        let of = || Example::of(op.clone());
        // Mean 3, variance 1, so that 1 / √(1 + 1/4) is the inverse deviation.
        let inverse = 1.0 / 1.25f64.sqrt();
        Spec::default()
            .example(
                of().given(f32([1, 2]), &[2.0, 4.0])
                    .given(f32([2]), &[1.0, 10.0])
                    .given(f32([2]), &[0.0, 5.0])
                    .gives(&[1, 2], &[-inverse, 10.0 * inverse + 5.0])
                    .gives(&[1, 1], &[3.0])
                    .gives(&[1, 1], &[inverse])
                    .differentiable(),
            )
            .example(
                of().floats([Dim::from(B), P.into(), 4.into()])
                    .floats([4])
                    .floats([4])
                    .differentiable(),
            )
            // The statistics are for the derivative alone.
            .example(
                of().floats([2, 3])
                    .floats([3])
                    .floats([3])
                    .reading(&[0, 1])
                    .derivative_refused(),
            )
            .rejects(op.clone(), [f32([2, 3]), f32([2]), f32([3])], "must be [3]")
            .rejects(
                op.clone(),
                [f32(SCALAR), f32([1]), f32([1])],
                "with dimensions",
            )
            .rejects(op.clone(), [f32([3]), i64([3]), f32([3])], "takes floats")
    }
}
