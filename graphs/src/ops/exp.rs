//! The exponential, elementwise.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// The exponential, elementwise.
#[derive(Debug, Clone, PartialEq)]
pub struct Exp;

impl Graph {
    /// The exponential, elementwise.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn exp(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Exp, &[x])
    }
}

impl Operator for Exp {
    fn name(&self) -> &'static str {
        "Exp"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = graph.mul(at.grad()?, at.output(0))?;
        Ok(vec![Some(grad)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0].mapv(f64::exp)])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Exp", inputs, outputs);
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
                Example::of(Exp)
                    .given(f32([2]), &[0.0, 1.0])
                    .gives(&[2], &[1.0, std::f64::consts::E])
                    .differentiable(),
            )
            .rejects(Exp, [i64([2])], "not i64")
    }
}
