//! Tensors joined along one dimension.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use ndarray::{Axis, Slice as Range};

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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Move
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.moves()
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let views: Vec<_> = inputs.iter().map(|x| x.view()).collect();
        ndarray::concatenate(Axis(self.axis), &views)
            .map(|x| vec![x.as_standard_layout().into_owned()])
            .map_err(|e| e.to_string())
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.standard_with(
            "Concat",
            inputs,
            outputs,
            [("axis", Attribute::Int(self.axis as i64))],
        );
        Ok(())
    }
}

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
        let [x] = exactly(inputs)?;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Low
    }

    fn cost(&self, node: &Operands) -> Cost {
        node.moves()
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
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

    pub fn concat() -> Spec {
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

    pub fn split() -> Spec {
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
