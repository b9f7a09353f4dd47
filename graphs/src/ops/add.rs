//! Elementwise sum, broadcasting.

use super::operator::{Operator, Vjp};
use super::broadcast;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise sum, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Add;

impl Graph {
    /// Elementwise sum, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn add(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Add, &[a, b])
    }
}

impl Operator for Add {
    fn name(&self) -> &'static str {
        "Add"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::infer(inputs, None)
    }

    fn vjp(&self, _: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = at.grad()?;
        Ok(vec![Some(grad), Some(grad)])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| a + b)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Add", inputs, outputs);
        Ok(())
    }
}
