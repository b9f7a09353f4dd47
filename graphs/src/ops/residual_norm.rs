//! What joins a branch to the residual stream in one operator: bias, dropout, residual, layer
//! normalization.

use super::dropping::RowDropout;
use super::layer_norm::LayerNorm;
use super::operator::{Kernel, Operator, Vjp};
use super::residual_norm_grad::{Gradients, ResidualNormGrad};
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};

/// Layer normalization of `residual + dropout(branch + bias)`, rows `[R, B, D]`, with its `scale` and
/// `shift`, all three vectors f32 `[D]`; the inputs of dropout come last.
///
/// Gives the normalized rows twice, like `residual` and, for matrix products, like `branch`; then, for
/// the derivative, the sum like `branch` and every row's mean and inverse deviation, f32 `[R, B, 1]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ResidualNorm {
    pub epsilon: f32,
    pub dropout: RowDropout,
}

/// Inputs before those of dropout.
const PLAIN_INPUTS: usize = 5;

/// Checks that rows have three dimensions, and gives those of their vectors and statistics.
pub(super) fn parts(rows: &Type) -> Result<(Type, Type), String> {
    let [r, b, d] = &rows.shape[..] else {
        return Err("takes floats [rows, batch, width]".to_owned());
    };
    if !rows.dtype.is_float() {
        return Err("takes floats [rows, batch, width]".to_owned());
    }
    let statistics = Type::f32([r.clone(), b.clone(), Dim::from(1)]);
    Ok((Type::f32([d.clone()]), statistics))
}

impl Operator for ResidualNorm {
    fn name(&self) -> &'static str {
        "ResidualNorm"
    }

    fn attributes(&self) -> String {
        self.dropout.shown()
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [residual, branch, bias, scale, shift, dropped @ ..] = inputs else {
            return Err(format!("takes {PLAIN_INPUTS} inputs and those of dropout"));
        };
        let (vector, statistics) = parts(branch)?;
        if residual.shape != branch.shape || !residual.dtype.is_float() {
            return Err("the residual and its branch have different shapes".to_owned());
        }
        if [bias, scale, shift].iter().any(|v| ***v != vector) {
            return Err(format!("bias, scale and shift must be {vector}"));
        }
        self.dropout.check(branch, dropped)?;
        let (normal, low) = ((*residual).clone(), (*branch).clone());
        Ok(vec![
            normal,
            low.clone(),
            low,
            statistics.clone(),
            statistics,
        ])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let [normal, copy, rest @ ..] = at.grads else {
            return Err(derivative("it has five outputs"));
        };
        let gradients = match (normal, copy) {
            (Some(_), Some(_)) => Gradients::Both,
            (Some(_), None) => Gradients::Normal,
            (None, _) => Gradients::Copy,
        };
        if rest.iter().any(Option::is_some) {
            return Err(derivative("the loss depends on its sum or statistics"));
        }
        let op = ResidualNormGrad {
            gradients,
            dropout: self.dropout,
        };
        let mut inputs: Vec<ValueId> = [normal, copy].into_iter().flatten().copied().collect();
        inputs.extend([at.output(2), at.input(3), at.output(3), at.output(4)]);
        inputs.extend(&at.node.inputs[PLAIN_INPUTS..]);
        let grads = graph.apply(op, &inputs)?;
        let mut all: Vec<_> = grads.into_iter().map(Some).collect();
        all.resize(at.node.inputs.len(), None);
        Ok(all)
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let branch = inputs[1] + inputs[2];
        let kept = self.dropout.multipliers(&branch, &inputs[PLAIN_INPUTS..]);
        let sum = inputs[0] + branch * kept;
        let norm = LayerNorm {
            epsilon: self.epsilon,
        };
        let mut outputs = norm.evaluate(sizes, &[&sum, inputs[3], inputs[4]])?;
        let copy = outputs[0].clone();
        outputs.splice(1..1, [copy, sum]);
        Ok(outputs)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let attributes = [
            ("epsilon", Attribute::Float(self.epsilon)),
            ("ratio", Attribute::Float(self.dropout.effective_ratio())),
        ];
        emitter.own(self.name(), inputs, outputs, attributes);
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
        let [residual, branch, bias, scale, shift, dropped @ ..] = inputs else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes {PLAIN_INPUTS} inputs and those of dropout"),
            });
        };
        let bias = graph.cast_like(*bias, *branch)?;
        let y = graph.add(*branch, bias)?;
        let y = self.dropout.apply(graph, y, dropped)?;
        let y = graph.cast_like(y, *residual)?;
        let sum = graph.add(*residual, y)?; // [R, B, D]
        let wide = graph.cast(sum, DType::F32)?;
        let norm = LayerNorm {
            epsilon: self.epsilon,
        };
        let outputs = graph.apply(norm, &[wide, *scale, *shift])?;
        let normal = graph.cast_like(outputs[0], *residual)?;
        let copy = graph.cast_like(outputs[0], *branch)?;
        let sum = graph.cast_like(sum, *branch)?;
        Ok(Some(vec![normal, copy, sum, outputs[1], outputs[2]]))
    }
}

fn derivative(reason: &str) -> GraphError {
    GraphError::Derivative {
        op: "ResidualNorm",
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::dropping::tests::{ALL, given};
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        let shape = || [Dim::from(L), Dim::from(B), Dim::from(4)];
        let mut spec = Spec::default();
        for dropout in ALL {
            let op = ResidualNorm {
                epsilon: 0.25,
                dropout,
            };
            for read in [&[0, 1][..], &[0], &[1]] {
                let example = Example::of(op)
                    .floats(shape())
                    .floats(shape())
                    .floats([4])
                    .floats([4])
                    .floats([4]);
                let example = given(dropout, shape(), example);
                spec = spec.example(example.reading(read).differentiable());
            }
        }
        let plain = ResidualNorm {
            epsilon: 0.25,
            dropout: ALL[0],
        };
        let rows = || f32([2, 3, 4]);
        let vector = || f32([4]);
        spec.rejects(
            plain,
            [rows(), f32([2, 3, 5]), f32([5]), f32([5]), f32([5])],
            "different shapes",
        )
        .rejects(
            plain,
            [rows(), rows(), vector(), f32([3]), vector()],
            "bias, scale and shift must be",
        )
        .rejects(
            plain,
            [f32([2, 4]), f32([2, 4]), vector(), vector(), vector()],
            "[rows, batch, width]",
        )
    }
}
