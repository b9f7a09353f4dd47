//! Softmax over the last dimension.

use super::broadcast;
use super::operator::{Operator, Vjp};
use super::softmax_grad::SoftmaxGrad;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Softmax over the last dimension.
#[derive(Debug, Clone, PartialEq)]
pub struct Softmax;

impl Graph {
    /// Softmax over the last dimension.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn softmax(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Softmax, &[x])
    }
}

impl Operator for Softmax {
    fn name(&self) -> &'static str {
        "Softmax"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary_rows(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let (grad, y) = (at.grad()?, at.output(0));
        Ok(vec![Some(graph.apply1(SoftmaxGrad, &[grad, y])?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut y = inputs[0].clone();
        let last = y
            .ndim()
            .checked_sub(1)
            .ok_or("takes a tensor with dimensions")?;
        for mut lane in y.lanes_mut(Axis(last)) {
            let max = lane.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            lane.mapv_inplace(|x| (x - max).exp());
            let sum = lane.sum();
            lane.mapv_inplace(|x| x / sum);
        }
        Ok(vec![y])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard_with("Softmax", inputs, outputs, [("axis", Attribute::Int(-1))]);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        // A blocked key is −∞; large scores do not overflow.
        let scores = [0.0, 3f64.ln(), f64::NEG_INFINITY, 800.0, 800.0, 800.0];
        let third = 1.0 / 3.0;
        Spec::default()
            .example(
                Example::of(Softmax)
                    .given(f32([2, 3]), &scores)
                    .gives(&[2, 3], &[0.25, 0.75, 0.0, third, third, third])
                    .derivative_unchecked(),
            )
            .example(Example::of(Softmax).floats([B, L, P]).differentiable())
            .rejects(Softmax, [i64([2])], "not i64")
            .rejects(Softmax, [f32(SCALAR)], "with dimensions")
    }
}
