//! Elementwise difference, broadcasting.

use super::operator::{Operator, Vjp};
use super::broadcast;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise difference, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Sub;

impl Graph {
    /// Elementwise difference, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn sub(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Sub, &[a, b])
    }
}

impl Operator for Sub {
    fn name(&self) -> &'static str {
        "Sub"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::infer(inputs, None)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = at.grad()?;
        let minus_one = graph.scalar(-1.0)?;
        Ok(vec![Some(grad), Some(graph.mul(grad, minus_one)?)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| a - b)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Sub", inputs, outputs);
        Ok(())
    }
}
