//! Hyperbolic tangent.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Hyperbolic tangent.
#[derive(Debug, Clone, PartialEq)]
pub struct Tanh;

impl Graph {
    /// Hyperbolic tangent.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn tanh(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Tanh, &[x])
    }
}

impl Operator for Tanh {
    fn name(&self) -> &'static str {
        "Tanh"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        // dy · (1 − y²)
        let (grad, y) = (at.grad()?, at.output(0));
        let square = graph.mul(y, y)?;
        let one = graph.scalar(1.0)?;
        let slope = graph.sub(one, square)?;
        Ok(vec![Some(graph.mul(grad, slope)?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0].mapv(|x| x.tanh())])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Tanh", inputs, outputs);
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
                Example::of(Tanh)
                    .given(f32([3]), &[0.0, 2f64.ln(), -800.0])
                    .gives(&[3], &[0.0, 0.6, -1.0])
                    .differentiable(),
            )
            .example(Example::of(Tanh).floats([B, L]).differentiable())
            .rejects(Tanh, [bool([2])], "not bool")
    }
}
