//! A tensor cut into consecutive pieces along one dimension.

use super::concat::Concat;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::{Axis, Slice as Range};

/// Consecutive pieces of the given sizes along `axis`, one output each.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    pub axis: usize,
    pub sizes: Vec<usize>,
}

impl Operator for Split {
    fn name(&self) -> &'static str {
        "Split"
    }

    fn attributes(&self) -> String {
        format!(" axis={} {:?}", self.axis, self.sizes)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = inputs else {
            return Err(format!("takes 1 input, not {}", inputs.len()));
        };
        if self.sizes.is_empty() {
            return Err("makes at least 1 piece".to_owned());
        }
        let whole = self.sizes.iter().sum();
        if !x.shape.get(self.axis).is_some_and(|d| d.is(whole)) {
            return Err(format!("dimension {} is not {whole}", self.axis));
        }
        Ok(self
            .sizes
            .iter()
            .map(|&size| {
                let mut ty = (*x).clone();
                ty.shape[self.axis] = Dim::from(size);
                ty
            })
            .collect())
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let mut pieces = Vec::with_capacity(self.sizes.len());
        for (i, grad) in at.grads.iter().enumerate() {
            pieces.push(match grad {
                Some(grad) => *grad,
                None => {
                    let zero = graph.scalar(0.0)?;
                    let shape = graph.ty(at.output(i)).shape.clone();
                    graph.expand(zero, shape)?
                }
            });
        }
        Ok(vec![Some(
            graph.apply1(Concat { axis: self.axis }, &pieces)?,
        )])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut start = 0;
        Ok(self
            .sizes
            .iter()
            .map(|size| {
                let range = Range::from(start..start + size);
                start += size;
                inputs[0].slice_axis(Axis(self.axis), range).to_owned()
            })
            .collect())
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let sizes: Vec<i64> = self.sizes.iter().map(|&s| s as i64).collect();
        let sizes = emitter.indices(&sizes);
        emitter.standard_with(
            "Split",
            &[inputs[0].clone(), sizes],
            outputs,
            [("axis", Attribute::Int(self.axis as i64))],
        );
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let split = |axis, sizes: &[usize]| Split {
            axis,
            sizes: sizes.to_vec(),
        };
        Spec::default()
            .example(
                Example::of(split(1, &[1, 2]))
                    .given(f32([2, 3]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .gives(&[2, 1], &[1.0, 4.0])
                    .gives(&[2, 2], &[2.0, 3.0, 5.0, 6.0])
                    .reading(&[0, 1])
                    .differentiable(),
            )
            // Pieces that nobody reads have gradient 0.
            .example(
                Example::of(split(0, &[2, 1, 1]))
                    .floats([Dim::from(4), L.into()])
                    .reading(&[1])
                    .differentiable(),
            )
            .rejects(split(0, &[1, 2]), [f32([4])], "dimension 0 is not 3")
            .rejects(split(1, &[1]), [f32([1])], "dimension 1 is not 1")
            .rejects(split(0, &[1]), [f32([L])], "dimension 0 is not 1")
            .rejects(split(0, &[]), [f32([0])], "at least 1 piece")
    }
}
