//! Product of 32-bit counters modulo 2³², broadcasting: the hash behind dropout masks that a device
//! computes for itself.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Product modulo 2³².
#[derive(Debug, Clone, PartialEq)]
pub struct WrappingMul;

impl Graph {
    /// Product modulo 2³², broadcasting.
    ///
    /// # Errors
    /// Where the operands are no u32 or do not broadcast.
    pub fn wrapping_mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(WrappingMul, &[a, b])
    }
}

impl Operator for WrappingMul {
    fn name(&self) -> &'static str {
        "WrappingMul"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::elementwise(inputs, &[DType::U32])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None, None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| f64::from((a as u32).wrapping_mul(b as u32)))
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let u32s = |shape: [usize; 1]| Type::new(DType::U32, shape.map(Into::into));
        Spec::default()
            .example(
                Example::of(WrappingMul)
                    .given(u32s([2]), &[3.0, 4_294_967_295.0])
                    .given(u32s([1]), &[2_863_311_531.0])
                    .gives(&[2], &[1.0, 1_431_655_765.0])
                    .not_differentiable(),
            )
            .rejects(WrappingMul, [i64([2]), i64([2])], "takes u32")
            .rejects(
                WrappingMul,
                [u32s([2]), i64([2])],
                "different element types",
            )
    }
}
