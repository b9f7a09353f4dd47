//! A gradient added to what has been gathered of it by earlier micro-batches, which the runtime is told of.

use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, exactly, operands};
use crate::ir::{Array, Bindings, Cost, DType, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;

/// A sum so far and a gradient of its shape, f32: the new sum. The runtime counts those of a segment, and begins to sum
/// them over the ranks when all are there.
#[derive(Debug, Clone, PartialEq)]
pub struct AddGradient {
    /// Which of the plan's segments the sum lies in.
    pub segment: usize,
}

impl Operator for AddGradient {
    fn name(&self) -> &'static str {
        "AddGradient"
    }

    fn attributes(&self) -> String {
        format!(" {}", self.segment)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [so_far, gradient] = exactly(inputs)?;
        if so_far != gradient || so_far.dtype != DType::F32 {
            return Err("takes a sum and a gradient of its shape, in f32".to_owned());
        }
        Ok(vec![(*so_far).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::AddGradient)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [so_far, gradient] = exactly(inputs)?;
        Ok(vec![*so_far + *gradient])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let segment = i64::try_from(self.segment).map_err(|error| error.to_string())?;
        emitter.own(
            KernelId::AddGradient,
            &inputs[0],
            inputs,
            outputs,
            [("segment", Attribute::Int(segment))],
        );
        Ok(())
    }

    fn expand(&self, g: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let [so_far, gradient] = operands(self.name(), inputs)?;
        Ok(Some(vec![g.add(so_far, gradient)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn add_gradient() -> Spec {
        const OP: AddGradient = AddGradient { segment: 2 };
        Spec::default()
            .example(
                Example::of(OP)
                    .given(f32([2]), &[1.0, 2.0])
                    .given(f32([2]), &[3.0, -4.0])
                    .gives(&[2], &[4.0, -2.0])
                    .derivative_refused(),
            )
            .rejects(OP, [f32([2]), f32([3])], "of its shape")
            .rejects(OP, [i64([2]), i64([2])], "in f32")
    }
}
