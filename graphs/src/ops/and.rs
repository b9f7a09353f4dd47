//! Elementwise conjunction of booleans, broadcasting.

use super::broadcast;
use super::operator::{Operator, Vjp};
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
        broadcast::elementwise(inputs, &[DType::Bool])
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(And)
                    .given(bool([2, 1]), &[0.0, 1.0])
                    .given(bool([2]), &[0.0, 1.0])
                    .gives(&[2, 2], &[0.0, 0.0, 0.0, 1.0])
                    .not_differentiable(),
            )
            .rejects(And, [i64([2]), i64([2])], "not i64")
            .rejects(
                And,
                [bool([2]), bool([3])],
                "dimension 0 is 2 in one and 3 in the other",
            )
    }
}
