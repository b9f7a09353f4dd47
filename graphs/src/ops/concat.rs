//! Tensors joined along one dimension.

use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// The inputs one after another along `axis`.
#[derive(Debug, Clone, PartialEq)]
pub struct Concat {
    pub axis: usize,
}

impl Graph {
    /// The tensors one after another along `axis`.
    ///
    /// # Errors
    /// Where another dimension differs.
    pub fn concat(&mut self, axis: usize, parts: &[ValueId]) -> Result<ValueId, GraphError> {
        self.apply1(Concat { axis }, parts)
    }
}

impl Operator for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }

    fn attributes(&self) -> String {
        format!(" axis={}", self.axis)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let Some((first, rest)) = inputs.split_first() else {
            return Err("takes at least 1 input".to_owned());
        };
        let mut ty = (*first).clone();
        if self.axis >= ty.rank() {
            return Err(format!("there is no dimension {}", self.axis));
        }
        for part in rest {
            let mut aligned = (*part).clone();
            if let Some(dim) = aligned.shape.get_mut(self.axis) {
                let total = ty.shape[self.axis].clone() + dim.clone();
                *dim = ty.shape[self.axis].clone();
                if aligned != ty {
                    return Err("other dimensions or element types differ".to_owned());
                }
                ty.shape[self.axis] = total;
            } else {
                return Err("ranks differ".to_owned());
            }
        }
        Ok(vec![ty])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = at.grad()?;
        let mut start = Dim::from(0);
        let mut grads = Vec::with_capacity(at.node.inputs.len());
        for input in &at.node.inputs {
            let end = start.clone() + graph.ty(*input).shape[self.axis].clone();
            grads.push(Some(graph.slice(grad, self.axis, start, end.clone())?));
            start = end;
        }
        Ok(grads)
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
        ndarray::concatenate(Axis(self.axis), &views)
            .map(|x| vec![x.as_standard_layout().into_owned()])
            .map_err(|e| e.to_string())
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard_with(
            "Concat",
            inputs,
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
        let concat = |axis| Concat { axis };
        Spec::default()
            .variadic()
            .example(
                Example::of(concat(1))
                    .given(f32([2, 1]), &[1.0, 2.0])
                    .given(f32([2, 2]), &[3.0, 4.0, 5.0, 6.0])
                    .gives(&[2, 3], &[1.0, 3.0, 4.0, 2.0, 5.0, 6.0])
                    .differentiable(),
            )
            .example(
                Example::of(concat(0))
                    .floats([Dim::from(L), 2.into()])
                    .floats([1, 2])
                    .floats([Dim::from(P), 2.into()])
                    .differentiable(),
            )
            .rejects(concat(0), [], "at least 1 input")
            .rejects(concat(2), [f32([2, 3])], "no dimension 2")
            .rejects(concat(1), [f32([2, 3]), f32([3, 3])], "other dimensions")
            .rejects(concat(0), [f32([2]), i64([2])], "element types differ")
            .rejects(concat(1), [f32([2, 3]), f32([2])], "ranks differ")
    }
}
