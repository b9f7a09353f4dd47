//! Rectifier, max(x, 0).

use super::broadcast;
use super::operator::{Operator, Vjp};
use super::relu_grad::ReluGrad;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Rectifier, max(x, 0).
#[derive(Debug, Clone, PartialEq)]
pub struct Relu;

impl Graph {
    /// Rectifier, max(x, 0).
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn relu(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Relu, &[x])
    }
}

impl Operator for Relu {
    fn name(&self) -> &'static str {
        "Relu"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let (grad, y) = (at.grad()?, at.output(0));
        Ok(vec![Some(graph.apply1(ReluGrad, &[grad, y])?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0].mapv(|x| x.max(0.0))])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Relu", inputs, outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(Relu)
                    .given(f32([2]), &[-2.0, 3.0])
                    .gives(&[2], &[0.0, 3.0])
                    .differentiable(),
            )
            .example(Example::of(Relu).floats([B, L]).differentiable())
            .rejects(Relu, [i64([2])], "not i64")
    }
}
