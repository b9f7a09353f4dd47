//! Elementwise `a = b`, broadcasting.

use super::operator::{Operator, Vjp};
use super::broadcast;
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise `a = b`, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Equal;

impl Graph {
    /// Elementwise `a = b`, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn equal(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Equal, &[a, b])
    }
}

impl Operator for Equal {
    fn name(&self) -> &'static str {
        "Equal"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::infer(inputs, Some(DType::Bool))
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None, None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| f64::from(a == b))
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Equal", inputs, outputs);
        Ok(())
    }
}
