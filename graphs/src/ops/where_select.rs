//! Elementwise choice: `a` where the condition holds, else `b`, broadcasting.

use super::broadcast;
use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
use ndarray::{IxDyn, Zip};

/// Elementwise choice: `a` where the condition holds, else `b`, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Where;

impl Graph {
    /// `a` where `condition` holds, else `b`.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn where_select(
        &mut self,
        condition: ValueId,
        a: ValueId,
        b: ValueId,
    ) -> Result<ValueId, GraphError> {
        self.apply1(Where, &[condition, a, b])
    }
}

impl Operator for Where {
    fn name(&self) -> &'static str {
        "Where"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [condition, a, b] = exactly(inputs)?;
        if condition.dtype != DType::Bool || a.dtype != b.dtype {
            return Err("takes a boolean and two tensors of one element type".to_owned());
        }
        let shape = broadcast::shape(&a.shape, &b.shape)?;
        let shape = broadcast::shape(&condition.shape, &shape)?;
        Ok(vec![Type::new(a.dtype, shape)])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let (condition, grad) = (at.input(0), at.grad()?);
        let zero = graph.scalar(0.0)?;
        let a = graph.where_select(condition, grad, zero)?;
        let b = graph.where_select(condition, zero, grad)?;
        Ok(vec![None, Some(a), Some(b)])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Move
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.flops(node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let pick = |x: &Array, shape: &[usize]| {
            x.broadcast(IxDyn(shape))
                .map(|v| v.to_owned())
                .ok_or("does not broadcast")
        };
        let both = broadcast::evaluate(&[inputs[1], inputs[2]], |a, _| a)?;
        let full = broadcast::evaluate(&[&both[0], inputs[0]], |a, _| a)?;
        let shape = full[0].shape().to_vec();
        let condition = pick(inputs[0], &shape)?;
        let (mut out, b) = (pick(inputs[1], &shape)?, pick(inputs[2], &shape)?);
        Zip::from(&mut out)
            .and(&condition)
            .and(&b)
            .for_each(|o, &c, &b| {
                if c == 0.0 {
                    *o = b;
                }
            });
        Ok(vec![out])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.select(inputs, outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;

    pub fn where_select() -> Spec {
        Spec::default()
            .example(
                Example::of(Where)
                    .given(bool([2, 1]), &[1.0, 0.0])
                    .given(f32([2]), &[1.0, 2.0])
                    .given(f32(SCALAR), &[f64::NEG_INFINITY])
                    .gives(&[2, 2], &[1.0, 2.0, f64::NEG_INFINITY, f64::NEG_INFINITY])
                    .derivative_unchecked(),
            )
            .example(
                Example::of(Where)
                    .mask([B, L])
                    .floats([Dim::from(P), 1.into(), L.into()])
                    .floats([1])
                    .differentiable(),
            )
            .rejects(Where, [f32([2]), f32([2]), f32([2])], "takes a boolean")
            .rejects(Where, [bool([2]), f32([2]), i64([2])], "one element type")
            .rejects(
                Where,
                [bool([2]), f32([3]), f32([3])],
                "dimension 0 is 2 in one and 3 in",
            )
    }
}
