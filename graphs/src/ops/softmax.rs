//! Softmax over the last dimension.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp};
use crate::ir::{Array, Bindings, Cost, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Maximum, subtract, exp, sum, divide.
        node.flops(5 * node.input(0))
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.standard_with("Softmax", inputs, outputs, [("axis", Attribute::Int(-1))]);
        Ok(())
    }
}

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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Training("SoftmaxGrad_13")]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Follow
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Multiply, sum, subtract, multiply.
        node.flops(4 * node.output(0))
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.contrib(
            "SoftmaxGrad_13",
            inputs,
            outputs,
            [("axis", Attribute::Int(-1))],
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
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
    use crate::ops::testing::*;

    pub fn softmax() -> Spec {
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

    pub fn softmax_grad() -> Spec {
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
