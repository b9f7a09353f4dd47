//! Elementwise conjunction of booleans, broadcasting.

use super::operator::{Operator, Vjp};
use super::broadcast;
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise conjunction of booleans, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct And;

impl Graph {
    /// Elementwise conjunction of booleans, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn and(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(And, &[a, b])
    }
}

impl Operator for And {
    fn name(&self) -> &'static str {
        "And"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::infer(inputs, Some(DType::Bool))
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None, None])
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
        emitter.standard("And", inputs, outputs);
        Ok(())
    }
}
