//! Derivative of what joins a branch to the residual stream.

use super::dropping::RowDropout;
use super::layer_norm_grad::LayerNormGrad;
use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use super::residual_norm::parts;
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Which outputs of the operator have a gradient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gradients {
    /// The normalized rows.
    Normal,
    /// Their copy for matrix products.
    Copy,
    Both,
}

/// Derivative of [`super::residual_norm::ResidualNorm`] with respect to residual, branch, bias, scale
/// and shift.
///
/// Inputs are the gradients, the sum, the scale, mean and inverse deviation, and those of dropout.
/// The residual's gradient is f32, the branch's like the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResidualNormGrad {
    pub gradients: Gradients,
    pub dropout: RowDropout,
}

impl ResidualNormGrad {
    /// How many gradients come in.
    pub(crate) fn incoming(&self) -> usize {
        match self.gradients {
            Gradients::Normal | Gradients::Copy => 1,
            Gradients::Both => 2,
        }
    }

    /// Inputs before those of dropout.
    pub(crate) fn plain_inputs(&self) -> usize {
        self.incoming() + 4
    }
}

impl Operator for ResidualNormGrad {
    fn name(&self) -> &'static str {
        "ResidualNormGrad"
    }

    fn attributes(&self) -> String {
        let of = match self.gradients {
            Gradients::Normal => " of=normal",
            Gradients::Copy => " of=copy",
            Gradients::Both => "",
        };
        format!("{of}{}", self.dropout.shown())
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if inputs.len() < self.plain_inputs() {
            return Err(format!("takes {} inputs or more", self.plain_inputs()));
        }
        let (gradients, rest) = inputs.split_at(self.incoming());
        let [sum, scale, mean, inverse, dropped @ ..] = rest else {
            return Err("takes a sum, a scale and statistics".to_owned());
        };
        let (vector, statistics) = parts(sum)?;
        let fits = |g: &&Type| g.shape == sum.shape && g.dtype.is_float();
        if !gradients.iter().all(fits) || **mean != statistics || **inverse != statistics {
            return Err("gradients, sum and statistics do not fit".to_owned());
        }
        if **scale != vector {
            return Err(format!("scale must be {vector}"));
        }
        self.dropout.check(sum, dropped)?;
        let residual = Type::f32(sum.shape.iter().cloned());
        let branch = (*sum).clone();
        Ok(vec![
            residual,
            branch,
            vector.clone(),
            vector.clone(),
            vector,
        ])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (gradients, rest) = inputs.split_at(self.incoming());
        let gradient = gradients
            .iter()
            .skip(1)
            .fold(gradients[0].clone(), |sum, g| sum + *g);
        let mut outputs =
            LayerNormGrad.evaluate(sizes, &[&gradient, rest[0], rest[1], rest[2], rest[3]])?;
        let branch = &outputs[0] * &self.dropout.multipliers(&outputs[0], &rest[4..]);
        let bias = branch.sum_axis(Axis(0)).sum_axis(Axis(0));
        outputs.splice(1..1, [branch, bias]);
        Ok(outputs)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        // A gradient that is not there has an empty name.
        let mut named = inputs.to_vec();
        match self.gradients {
            Gradients::Normal => named.insert(1, String::new()),
            Gradients::Copy => named.insert(0, String::new()),
            Gradients::Both => {}
        }
        let ratio = Attribute::Float(self.dropout.effective_ratio());
        emitter.own(self.name(), &named, outputs, [("ratio", ratio)]);
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
        let (gradients, rest) = inputs.split_at(self.incoming());
        let mut gradient = graph.cast(gradients[0], DType::F32)?;
        for further in &gradients[1..] {
            let further = graph.cast(*further, DType::F32)?;
            gradient = graph.add(gradient, further)?;
        }
        let sum = graph.cast(rest[0], DType::F32)?;
        let inputs = [gradient, sum, rest[1], rest[2], rest[3]];
        let grads = graph.apply(LayerNormGrad, &inputs)?;
        let branch = graph.cast_like(grads[0], rest[0])?;
        let branch = self.dropout.apply(graph, branch, &rest[4..])?;
        let wide = graph.cast(branch, DType::F32)?;
        let bias = graph.reduce_sum(wide, &[0, 1], false)?;
        Ok(Some(vec![grads[0], branch, bias, grads[1], grads[2]]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::dropping::tests::{ALL, given};
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        let shape = || [Dim::from(L), Dim::from(B), Dim::from(4)];
        let statistics = || [Dim::from(L), Dim::from(B), Dim::from(1)];
        let mut spec = Spec::default();
        for dropout in ALL {
            for gradients in [Gradients::Normal, Gradients::Copy, Gradients::Both] {
                let op = ResidualNormGrad { gradients, dropout };
                let incoming = (0..op.incoming()).fold(Example::of(op), |e, _| e.floats(shape()));
                let example = incoming
                    .floats(shape())
                    .floats([4])
                    .floats(statistics())
                    .floats(statistics());
                spec = spec.example(given(dropout, shape(), example).derivative_refused());
            }
        }
        let plain = ResidualNormGrad {
            gradients: Gradients::Normal,
            dropout: ALL[0],
        };
        let rows = || f32([2, 3, 4]);
        let column = || f32([2, 3, 1]);
        spec.rejects(
            plain,
            [rows(), rows(), f32([4]), f32([2, 3]), column()],
            "statistics do not fit",
        )
        .rejects(
            plain,
            [rows(), rows(), f32([3]), column(), column()],
            "scale must be",
        )
    }
}
