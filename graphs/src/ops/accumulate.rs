//! A gradient added into its buffer, or stored there when the buffer is reset.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// A gradient added into its buffer, or stored there when the buffer is reset.
#[derive(Debug, Clone, PartialEq)]
pub struct Accumulate;

impl Operator for Accumulate {
    fn name(&self) -> &'static str {
        "Accumulate"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [buffer, grad, reset] = inputs else {
            return Err(format!("takes 3 inputs, not {}", inputs.len()));
        };
        let flag = Type::new(DType::Bool, [Dim::from(1)]);
        if buffer != grad || buffer.dtype != DType::F32 || **reset != flag {
            return Err("takes a buffer, a gradient of its shape and bool[1]".to_owned());
        }
        // Whether the buffer was updated, and what it now holds.
        Ok(vec![flag, (*buffer).clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let kept = 1.0 - inputs[2].sum();
        let sum = inputs[0] * kept + inputs[1];
        Ok(vec![ndarray::arr1(&[1.0]).into_dyn(), sum])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.contrib("InPlaceAccumulatorV2", inputs, outputs, []);
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Training
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let example = |reset| {
            Example::of(Accumulate)
                .given(f32([2]), &[1.0, 2.0])
                .given(f32([2]), &[3.0, 4.0])
                .given(bool([1]), &[reset])
                .derivative_refused()
        };
        Spec::default()
            .example(example(0.0).gives(&[1], &[1.0]).gives(&[2], &[4.0, 6.0]))
            .example(example(1.0).gives(&[1], &[1.0]).gives(&[2], &[3.0, 4.0]))
            .rejects(Accumulate, [f32([2]), f32([3]), bool([1])], "of its shape")
            .rejects(Accumulate, [f32([2]), f32([2]), f32([1])], "bool[1]")
    }
}
