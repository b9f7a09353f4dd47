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
        match inputs {
            [x] if x.rank() > 0 => Ok(vec![Type::new(
                DType::I64,
                x.shape[..x.rank() - 1].iter().cloned(),
            )]),
            _ => Err("takes a tensor with dimensions".to_owned()),
        }
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
            [("axis", Attribute::Int(-1)), ("keepdims", Attribute::Int(0))],
        );
        Ok(())
    }
}
