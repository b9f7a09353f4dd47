//! Derivative of GELU of a sum with a bias and dropout behind it, and its value once more.

use super::bias_gelu::BiasGelu;
use super::gelu_grad::GeluGrad;
use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
use ndarray::Axis;

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

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let x = inputs[1] + inputs[2];
        let kept = self.forward.dropout.multipliers(&x, &inputs[3..]);
        let dy = inputs[0] * &kept;
        let dx = self.slope().evaluate(sizes, &[&dy, &x])?.remove(0);
        let bias = dx.sum_axis(Axis(0)).sum_axis(Axis(0));
        let y = self.forward.gelu().evaluate(sizes, &[&x])?.remove(0);
        Ok(vec![dx, bias, y * kept])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.own(self.name(), inputs, outputs, self.forward.emitted());
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
        let bias = graph.cast_like(inputs[2], inputs[1])?;
        let x = graph.add(inputs[1], bias)?;
        let dropout = self.forward.dropout;
        let dy = dropout.apply(graph, inputs[0], &inputs[3..])?;
        let dx = graph.apply1(self.slope(), &[dy, x])?;
        let wide = graph.cast(dx, DType::F32)?;
        let rows: Vec<usize> = (0..graph.ty(dx).rank() - 1).collect();
        let bias = graph.reduce_sum(wide, &rows, false)?;
        let y = graph.apply1(self.forward.gelu(), &[x])?;
        let y = dropout.apply(graph, y, &inputs[3..])?;
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
    use crate::ops::bias_gelu::tests::{all, shape};
    use crate::ops::dropping::tests::given;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
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
