//! Derivative of the rectifier: `dy` where its output `y` is positive.

use super::broadcast;
use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
use ndarray::Zip;

/// Derivative of the rectifier: `dy` where its output `y` is positive.
#[derive(Debug, Clone, PartialEq)]
pub struct ReluGrad;

impl Operator for ReluGrad {
    fn name(&self) -> &'static str {
        "ReluGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::same_floats(inputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut dx = inputs[0].clone();
        Zip::from(&mut dx).and(inputs[1]).for_each(|d, &y| {
            if y <= 0.0 {
                *d = 0.0;
            }
        });
        Ok(vec![dx])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.contrib("ReluGrad", inputs, outputs, []);
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
        let zero = graph.scalar_like(y, 0.0)?;
        let positive = graph.less(zero, y)?;
        Ok(Some(vec![graph.where_select(positive, dy, zero)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::relu::Relu;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        Spec::default()
            // 0 at the kink, as PyTorch has it.
            .example(
                Example::of(ReluGrad)
                    .given(f32([3]), &[5.0, 6.0, 7.0])
                    .given(f32([3]), &[0.0, 2.0, -1.0])
                    .gives(&[3], &[0.0, 6.0, 0.0])
                    .derivative_refused(),
            )
            .rejects(ReluGrad, [f32([2]), f32([3])], "one shape")
    }

    #[test]
    fn it_is_the_derivative_of_relu() {
        let forward = Example::of(Relu).floats([12]);
        let dy = Example::seeded(Relu, 1).floats([12]).arrays().remove(0);
        let found = evaluate(
            &ReluGrad.into(),
            &[dy.clone(), forward.evaluate().remove(0)],
        );
        assert_close(&found[0], &forward.difference(&[Some(dy)], 0), 1e-7, "x");
    }
}
