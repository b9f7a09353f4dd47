//! Elementwise quotient, broadcasting; only in expansions and the optimizer, which nobody differentiates.

use super::broadcast;
use super::operator::{Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
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
        broadcast::elementwise(inputs, &[DType::F32, DType::BF16, DType::F16])
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(Div)
                    .given(f32([2, 1]), &[3.0, -1.0])
                    .given(f32([2]), &[2.0, 4.0])
                    .gives(&[2, 2], &[1.5, 0.75, -0.5, -0.25])
                    .derivative_refused(),
            )
            .rejects(Div, [i64([2]), i64([2])], "not i64")
            .rejects(Div, [f32([2]), i64([2])], "different element types")
    }
}
