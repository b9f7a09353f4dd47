//! Index of the largest element along the last dimension; the first of equals.

use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Index of the largest element along the last dimension; the first of equals.
#[derive(Debug, Clone, PartialEq)]
pub struct ArgMax;

impl Graph {
    /// Index of the largest element along the last dimension.
    ///
    /// # Errors
    /// Where `x` has no dimension.
    pub fn argmax(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(ArgMax, &[x])
    }
}

impl Operator for ArgMax {
    fn name(&self) -> &'static str {
        "ArgMax"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        if x.dtype == DType::Bool {
            return Err("takes numbers, not bool".to_owned());
        }
        let Some((_, rows)) = x.shape.split_last() else {
            return Err("takes a tensor with dimensions".to_owned());
        };
        Ok(vec![Type::new(DType::I64, rows.iter().cloned())])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(vec![None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let last = Axis(inputs[0].ndim() - 1);
        let best = inputs[0].map_axis(last, |lane| {
            let mut best = 0;
            for (i, x) in lane.iter().enumerate() {
                if *x > lane[best] {
                    best = i;
                }
            }
            best as f64
        });
        Ok(vec![best])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard_with(
            "ArgMax",
            inputs,
            outputs,
            [
                ("axis", Attribute::Int(-1)),
                ("keepdims", Attribute::Int(0)),
            ],
        );
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
                Example::of(ArgMax)
                    .given(f32([2, 3]), &[1.0, 3.0, 3.0, 5.0, 2.0, 5.0])
                    .gives(&[2], &[1.0, 0.0])
                    .not_differentiable(),
            )
            .example(Example::of(ArgMax).floats([B, L, P]).not_differentiable())
            .rejects(ArgMax, [f32(SCALAR)], "with dimensions")
            .rejects(ArgMax, [bool([3])], "not bool")
    }
}
