//! GELU of a sum with a bias, and dropout behind it, in one operator.

use super::bias_gelu_grad::BiasGeluGrad;
use super::dropping::RowDropout;
use super::gelu::Gelu;
use super::operator::{Kernel, Operator, Vjp};
use super::residual_norm::parts;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};

/// `dropout(gelu(x + bias))` of rows `[R, B, F]` with a bias f32 `[F]`; the inputs of dropout come last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasGelu {
    /// The tanh approximation, as in [`Gelu`].
    pub approximate: bool,
    pub dropout: RowDropout,
}

impl BiasGelu {
    pub(super) fn shown(&self) -> String {
        let form = if self.approximate { " tanh" } else { "" };
        format!("{form}{}", self.dropout.shown())
    }

    /// Checks rows, bias and the inputs of dropout.
    pub(super) fn check(&self, inputs: &[&Type]) -> Result<(), String> {
        let [x, bias, dropped @ ..] = inputs else {
            return Err("takes rows, a bias and the inputs of dropout".to_owned());
        };
        let (vector, _) = parts(x)?;
        match **bias == vector {
            true => self.dropout.check(x, dropped),
            false => Err(format!("the bias must be {vector}")),
        }
    }

    pub(super) fn emitted(&self) -> [(&'static str, Attribute); 2] {
        [
            ("approximate", Attribute::Int(i64::from(self.approximate))),
            ("ratio", Attribute::Float(self.dropout.effective_ratio())),
        ]
    }

    pub(super) fn gelu(&self) -> Gelu {
        Gelu {
            approximate: self.approximate,
        }
    }
}

impl Operator for BiasGelu {
    fn name(&self) -> &'static str {
        "BiasGelu"
    }

    fn attributes(&self) -> String {
        self.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        self.check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let mut inputs = vec![at.grad()?];
        inputs.extend(&at.node.inputs);
        let grads = graph.apply(BiasGeluGrad { forward: *self }, &inputs)?;
        let mut all = vec![Some(grads[0]), Some(grads[1])];
        all.resize(at.node.inputs.len(), None);
        Ok(all)
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let x = inputs[0] + inputs[1];
        let y = self.gelu().evaluate(sizes, &[&x])?.remove(0);
        let kept = self.dropout.multipliers(&y, &inputs[2..]);
        Ok(vec![y * kept])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.own(self.name(), inputs, outputs, self.emitted());
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Own
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let bias = graph.cast_like(inputs[1], inputs[0])?;
        let x = graph.add(inputs[0], bias)?;
        let y = graph.apply1(self.gelu(), &[x])?;
        Ok(Some(vec![self.dropout.apply(graph, y, &inputs[2..])?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::dropping::tests::{ALL, given};
    use crate::ops::testing::*;

    pub(in crate::ops) fn all() -> impl Iterator<Item = BiasGelu> {
        ALL.into_iter().flat_map(|dropout| {
            [false, true].map(|approximate| BiasGelu {
                approximate,
                dropout,
            })
        })
    }

    pub(in crate::ops) fn shape() -> [Dim; 3] {
        [Dim::from(L), Dim::from(B), Dim::from(4)]
    }

    pub fn spec() -> Spec {
        let mut spec = Spec::default();
        for op in all() {
            let example = Example::of(op).floats(shape()).floats([4]);
            spec = spec.example(given(op.dropout, shape(), example).differentiable());
        }
        let plain = BiasGelu {
            approximate: false,
            dropout: ALL[0],
        };
        spec.rejects(plain, [f32([2, 3, 4]), f32([3])], "the bias must be")
            .rejects(plain, [f32([2, 4]), f32([4])], "[rows, batch, width]")
    }
}
