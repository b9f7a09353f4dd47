//! Elementwise `a = b`, broadcasting.

use super::broadcast;
use super::operator::{Operator, Vjp};
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
        let any = [DType::F32, DType::I64, DType::Bool];
        let shape = broadcast::elementwise(inputs, &any)?.remove(0).shape;
        Ok(vec![Type::new(DType::Bool, shape)])
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(Equal)
                    .given(i64([3]), &[1.0, 2.0, 3.0])
                    .given(i64(SCALAR), &[2.0])
                    .gives(&[3], &[0.0, 1.0, 0.0])
                    .not_differentiable(),
            )
            .example(
                Example::of(Equal)
                    .floats([B, L])
                    .floats([B, L])
                    .not_differentiable(),
            )
            .rejects(
                Equal,
                [i64([2]), i64([3])],
                "dimension 0 is 2 in one and 3 in the other",
            )
            .rejects(Equal, [i64([2]), f32([2])], "different element types")
    }
}
