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
        match inputs {
            [a, _] if a.dtype != DType::U32 => Err("takes u32".to_owned()),
            _ => broadcast::infer(inputs, None),
        }
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
