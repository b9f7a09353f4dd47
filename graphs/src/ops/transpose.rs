//! Reordered dimensions.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly};
use crate::ir::{Array, Bindings, Cost, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use ndarray::IxDyn;

/// Output dimension `i` is input dimension `perm[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Transpose {
    pub perm: Vec<usize>,
}

impl Graph {
    /// `x` with its dimensions in the order `perm`.
    ///
    /// # Errors
    /// Where `perm` is no permutation of them.
    pub fn transpose(&mut self, x: ValueId, perm: &[usize]) -> Result<ValueId, GraphError> {
        let op = Transpose {
            perm: perm.to_vec(),
        };
        self.apply1(op, &[x])
    }
}

impl Operator for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }

    fn attributes(&self) -> String {
        format!(" {:?}", self.perm)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x] = exactly(inputs)?;
        let mut sorted = self.perm.clone();
        sorted.sort_unstable();
        if !sorted.into_iter().eq(0..x.rank()) {
            return Err(format!("{:?} is no order of its dimensions", self.perm));
        }
        Ok(vec![Type::new(
            x.dtype,
            self.perm.iter().map(|&i| x.shape[i].clone()),
        )])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let mut inverse = vec![0; self.perm.len()];
        for (to, &from) in self.perm.iter().enumerate() {
            inverse[from] = to;
        }
        Ok(vec![Some(graph.transpose(at.grad()?, &inverse)?)])
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
        let view = inputs[0].view().permuted_axes(IxDyn(&self.perm));
        Ok(vec![view.as_standard_layout().into_owned()])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let perm = self.perm.iter().map(|&i| i as i64).collect();
        emitter.standard_with(
            "Transpose",
            inputs,
            outputs,
            [("perm", Attribute::Ints(perm))],
        );
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;

    pub fn transpose() -> Spec {
        let by = |perm: &[usize]| Transpose {
            perm: perm.to_vec(),
        };
        Spec::default()
            .example(
                Example::of(by(&[1, 0]))
                    .given(f32([2, 3]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .gives(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0])
                    .differentiable(),
            )
            // Its own inverse is another order.
            .example(
                Example::of(by(&[2, 0, 3, 1]))
                    .floats([Dim::from(B), L.into(), P.into(), 2.into()])
                    .differentiable(),
            )
            .rejects(
                by(&[0, 0]),
                [f32([2, 3])],
                "[0, 0] is no order of its dimensions",
            )
            .rejects(by(&[0]), [f32([2, 3])], "[0] is no order of its dimensions")
    }
}
