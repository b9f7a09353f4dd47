//! Elementwise product, broadcasting.

use super::operator::{Operator, Vjp};
use super::broadcast;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise product, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Mul;

impl Graph {
    /// Elementwise product, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Mul, &[a, b])
    }
}

impl Operator for Mul {
    fn name(&self) -> &'static str {
        "Mul"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::infer(inputs, None)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = at.grad()?;
        Ok(vec![
            Some(graph.mul(grad, at.input(1))?),
            Some(graph.mul(grad, at.input(0))?),
        ])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| a * b)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Mul", inputs, outputs);
        Ok(())
    }
}
