//! Running totals along the last dimension.

use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
use ndarray::Axis;

/// Running totals of whole numbers along the last dimension, each with its own element.
#[derive(Debug, Clone, PartialEq)]
pub struct CumSum;

impl Graph {
    /// Running totals of `x` along its last dimension.
    ///
    /// # Errors
    /// Where `x` has no dimension or is not i64.
    pub fn cumsum(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(CumSum, &[x])
    }
}

impl Operator for CumSum {
    fn name(&self) -> &'static str {
        "CumSum"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        if x.dtype != DType::I64 {
            return Err(format!("counts in i64, not {}", x.dtype));
        }
        if x.rank() == 0 {
            return Err("takes a tensor with dimensions".to_owned());
        }
        Ok(vec![(*x).clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut totals = inputs[0].clone();
        let last = Axis(totals.ndim() - 1);
        totals.accumulate_axis_inplace(last, |before, x| *x += before);
        Ok(vec![totals])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let inputs = [inputs[0].clone(), emitter.index_scalar(-1)];
        emitter.standard("CumSum", &inputs, outputs);
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
                Example::of(CumSum)
                    .given(i64([2, 3]), &[1.0, 0.0, 2.0, -1.0, 1.0, 1.0])
                    .gives(&[2, 3], &[1.0, 1.0, 3.0, -1.0, 0.0, 1.0])
                    .not_differentiable(),
            )
            .example(
                Example::of(CumSum)
                    .indices([B, L, P], 9)
                    .not_differentiable(),
            )
            .rejects(CumSum, [i64(SCALAR)], "with dimensions")
            .rejects(CumSum, [f32([3])], "not f32")
    }
}
