//! Derivative of softmax over the last dimension: `(dy − Σ dy·y) · y`.

use super::broadcast;
use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Derivative of softmax over the last dimension: `(dy − Σ dy·y) · y`.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftmaxGrad;

impl Operator for SoftmaxGrad {
    fn name(&self) -> &'static str {
        "SoftmaxGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::same_rows(inputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (dy, y) = (inputs[0], inputs[1]);
        let last = y
            .ndim()
            .checked_sub(1)
            .ok_or("takes tensors with dimensions")?;
        let sum = (dy * y).sum_axis(Axis(last)).insert_axis(Axis(last));
        Ok(vec![(dy - &sum) * y])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.contrib(
            "SoftmaxGrad_13",
            inputs,
            outputs,
            [("axis", Attribute::Int(-1))],
        );
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Training
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let (dy, y) = (inputs[0], inputs[1]);
        let product = graph.mul(dy, y)?;
        let last = graph.ty(y).rank().saturating_sub(1);
        let sum = graph.reduce_sum(product, &[last], true)?; // [.., 1]
        let shift = graph.mul(y, sum)?;
        Ok(Some(vec![graph.sub(product, shift)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::softmax::Softmax;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(SoftmaxGrad)
                    .given(f32([2]), &[4.0, 8.0])
                    .given(f32([2]), &[0.25, 0.75])
                    .gives(&[2], &[-0.75, 0.75])
                    .derivative_refused(),
            )
            .rejects(SoftmaxGrad, [f32([2]), f32([3])], "one shape")
            .rejects(SoftmaxGrad, [f32(SCALAR), f32(SCALAR)], "with dimensions")
    }

    #[test]
    fn it_is_the_derivative_of_softmax() {
        let forward = Example::of(Softmax).floats([2, 3, 4]);
        let dy = Example::seeded(Softmax, 1)
            .floats([2, 3, 4])
            .arrays()
            .remove(0);
        let found = evaluate(
            &SoftmaxGrad.into(),
            &[dy.clone(), forward.evaluate().remove(0)],
        );
        assert_close(&found[0], &forward.difference(&[Some(dy)], 0), 1e-7, "x");
    }
}
