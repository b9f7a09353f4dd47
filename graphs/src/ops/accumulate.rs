//! A gradient added into its buffer, or stored there when the buffer is reset.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, exactly};
use crate::ir::{Array, Bindings, Cost, DType, Dim, Operands, Type};
use crate::onnx::emitter::Emitter;

/// A gradient added into its buffer, or stored there when the buffer is reset.
#[derive(Debug, Clone, PartialEq)]
pub struct Accumulate;

impl Operator for Accumulate {
    fn name(&self) -> &'static str {
        "Accumulate"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [buffer, grad, reset] = exactly(inputs)?;
        let flag = Type::new(DType::Bool, [Dim::from(1)]);
        if buffer != grad || buffer.dtype != DType::F32 || **reset != flag {
            return Err("takes a buffer, a gradient of its shape and bool[1]".to_owned());
        }
        // Whether the buffer was updated, and what it now holds.
        Ok(vec![flag, (*buffer).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Training("InPlaceAccumulatorV2")]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let kept = 1.0 - inputs[2].sum();
        let sum = inputs[0] * kept + inputs[1];
        Ok(vec![ndarray::arr1(&[1.0]).into_dyn(), sum])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.contrib("InPlaceAccumulatorV2", inputs, outputs, []);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn accumulate() -> Spec {
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
