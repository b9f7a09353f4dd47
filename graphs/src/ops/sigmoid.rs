//! Logistic function.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Logistic function.
#[derive(Debug, Clone, PartialEq)]
pub struct Sigmoid;

impl Graph {
    /// Logistic function.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn sigmoid(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Sigmoid, &[x])
    }
}

impl Operator for Sigmoid {
    fn name(&self) -> &'static str {
        "Sigmoid"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        // dy · y · (1 − y)
        let (grad, y) = (at.grad()?, at.output(0));
        let one = graph.scalar(1.0)?;
        let rest = graph.sub(one, y)?;
        let slope = graph.mul(y, rest)?;
        Ok(vec![Some(graph.mul(grad, slope)?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0].mapv(|x| 1.0 / (1.0 + (-x).exp()))])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Sigmoid", inputs, outputs);
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
                Example::of(Sigmoid)
                    .given(f32([3]), &[0.0, 3f64.ln(), -800.0])
                    .gives(&[3], &[0.5, 0.75, 0.0])
                    .differentiable(),
            )
            .example(Example::of(Sigmoid).floats([B, L]).differentiable())
            .rejects(Sigmoid, [i64([2])], "not i64")
    }
}
