//! GELU of a sum with a bias, and dropout behind it, in one operator.

use super::dropping::{Dropping, RowDropout};
use super::gelu::Gelu;
use super::gelu::GeluGrad;
use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, places};
use super::residual_norm::parts;
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::Axis;

/// `dropout(gelu(x + bias))` of rows `[R, B, F]` with a bias f32 `[F]`; the inputs of dropout come last.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasGelu {
    /// The tanh approximation, as in [`Gelu`].
    pub approximate: bool,
    pub dropout: RowDropout,
}

places! {
    /// The inputs of [`BiasGelu`].
    Inputs: X, BIAS, DROPOUT
}

places! {
    /// The inputs of [`BiasGeluGrad`].
    GradInputs: GRADIENT, X, BIAS, DROPOUT
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::BiasGelu)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![Inputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Bias, GELU, dropout (2).
        node.flops(if self.approximate { 11 } else { 8 } * node.output(0))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.dropout.dropping, Inputs::DROPOUT))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let x = inputs[Inputs::X] + inputs[Inputs::BIAS];
        let y = self.gelu().evaluate(sizes, &[&x])?.remove(0);
        let kept = self.dropout.multipliers(&y, &inputs[Inputs::DROPOUT..]);
        Ok(vec![y * kept])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let attributes = self.emitted();
        emitter.own(
            KernelId::BiasGelu,
            &inputs[Inputs::X],
            inputs,
            outputs,
            attributes,
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let bias = graph.cast_like(inputs[Inputs::BIAS], inputs[Inputs::X])?;
        let x = graph.add(inputs[Inputs::X], bias)?;
        let y = graph.apply1(self.gelu(), &[x])?;
        Ok(Some(vec![self.dropout.apply(
            graph,
            y,
            &inputs[Inputs::DROPOUT..],
        )?]))
    }
}

/// Derivative of [`BiasGelu`], from the gradient and its inputs, with respect to `x` and the bias; and
/// what [`BiasGelu`] gave, which then need not be kept until here.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasGeluGrad {
    pub forward: BiasGelu,
}

/// Which output is the value.
pub const VALUE: usize = 2;

impl Operator for BiasGeluGrad {
    fn name(&self) -> &'static str {
        "BiasGeluGrad"
    }

    fn attributes(&self) -> String {
        self.forward.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dy, forward @ ..] = inputs else {
            return Err("takes a gradient and the operator's inputs".to_owned());
        };
        self.forward.check(forward)?;
        if *dy != forward[0] {
            return Err("gradient and input do not fit".to_owned());
        }
        Ok(vec![(*dy).clone(), forward[1].clone(), (*dy).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::BiasGeluGrad)]
    }

    fn optional_outputs(&self) -> bool {
        true
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![GradInputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // GELU's derivative and GELU itself, dropout twice, the bias' gradient.
        node.flops(if self.forward.approximate { 30 } else { 21 } * node.output(0))
    }

    fn dropping(&mut self) -> Option<(&mut Dropping, usize)> {
        Some((&mut self.forward.dropout.dropping, GradInputs::DROPOUT))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let x = inputs[GradInputs::X] + inputs[GradInputs::BIAS];
        let kept = self
            .forward
            .dropout
            .multipliers(&x, &inputs[GradInputs::DROPOUT..]);
        let dy = inputs[GradInputs::GRADIENT] * &kept;
        let dx = self.slope().evaluate(sizes, &[&dy, &x])?.remove(0);
        let bias = dx.sum_axis(Axis(0)).sum_axis(Axis(0));
        let y = self.forward.gelu().evaluate(sizes, &[&x])?.remove(0);
        Ok(vec![dx, bias, y * kept])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let attributes = self.forward.emitted();
        emitter.own(
            KernelId::BiasGeluGrad,
            &inputs[GradInputs::X],
            inputs,
            outputs,
            attributes,
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let bias = graph.cast_like(inputs[GradInputs::BIAS], inputs[GradInputs::X])?;
        let x = graph.add(inputs[GradInputs::X], bias)?;
        let dropout = self.forward.dropout;
        let dy = dropout.apply(
            graph,
            inputs[GradInputs::GRADIENT],
            &inputs[GradInputs::DROPOUT..],
        )?;
        let dx = graph.apply1(self.slope(), &[dy, x])?;
        let wide = graph.cast(dx, DType::F32)?;
        let rows: Vec<usize> = (0..graph.ty(dx).rank() - 1).collect();
        let bias = graph.reduce_sum(wide, &rows, false)?;
        let y = graph.apply1(self.forward.gelu(), &[x])?;
        let y = dropout.apply(graph, y, &inputs[GradInputs::DROPOUT..])?;
        Ok(Some(vec![dx, bias, y]))
    }
}

impl BiasGeluGrad {
    fn slope(&self) -> GeluGrad {
        GeluGrad {
            approximate: self.forward.approximate,
        }
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

    pub fn bias_gelu() -> Spec {
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

    pub fn bias_gelu_grad() -> Spec {
        let mut spec = Spec::default();
        let mut plain = None;
        for forward in all() {
            let op = BiasGeluGrad { forward };
            let example = Example::of(op).floats(shape()).floats(shape()).floats([4]);
            spec = spec.example(given(forward.dropout, shape(), example).derivative_refused());
            plain = plain.or(Some(op));
        }
        let plain = plain.expect("an operator without dropout");
        spec.rejects(
            plain,
            [f32([2, 3, 5]), f32([2, 3, 4]), f32([4])],
            "gradient and input do not fit",
        )
    }
}
