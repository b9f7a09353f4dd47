//! Elementwise `a < b`, broadcasting.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise `a < b`, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Less;

impl Graph {
    /// Elementwise `a < b`, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn less(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Less, &[a, b])
    }
}

impl Operator for Less {
    fn name(&self) -> &'static str {
        "Less"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let allowed = [DType::F32, DType::BF16, DType::F16, DType::I64, DType::U32];
        let shape = broadcast::elementwise(inputs, &allowed)?.remove(0).shape;
        Ok(vec![Type::new(DType::Bool, shape)])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None, None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| f64::from(a < b))
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Less", inputs, outputs);
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
                Example::of(Less)
                    .given(i64([2, 1]), &[1.0, 2.0])
                    .given(i64([2]), &[2.0, 3.0])
                    .gives(&[2, 2], &[1.0, 1.0, 0.0, 1.0])
                    .not_differentiable(),
            )
            .example(
                Example::of(Less)
                    .floats([B, L])
                    .floats([L])
                    .not_differentiable(),
            )
            .rejects(Less, [bool([2]), bool([2])], "not bool")
            .rejects(
                Less,
                [i64([2]), i64([3])],
                "dimension 0 is 2 in one and 3 in the other",
            )
    }
}
