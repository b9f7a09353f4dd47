//! Elementwise quotient, broadcasting; only in expansions and the optimizer, which nobody differentiates.

use super::broadcast;
use super::operator::{Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise quotient, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Div;

impl Graph {
    /// Elementwise quotient, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn div(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Div, &[a, b])
    }
}

impl Operator for Div {
    fn name(&self) -> &'static str {
        "Div"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        match inputs {
            [a, _] if !a.dtype.is_float() => Err("takes floats".to_owned()),
            _ => broadcast::infer(inputs, None),
        }
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| a / b)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Div", inputs, outputs);
        Ok(())
    }
}
