//! Derivative of the summed cross entropy of logits that lack their bias.

use super::bias_cross_entropy::check;
use super::operator::{Kernel, Operator, Vjp, no_second_derivative, row_index};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Derivative of [`super::bias_cross_entropy::BiasCrossEntropy`] with respect to products and bias:
/// `(softmax − one-hot) · d loss`, 0 in ignored rows, and its sum over the rows.
///
/// Inputs are the loss's gradient, those of the operator, and the rows' sums.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasCrossEntropyGrad {
    pub ignore_index: i64,
}

impl Operator for BiasCrossEntropyGrad {
    fn name(&self) -> &'static str {
        "BiasCrossEntropyGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dloss, x, bias, targets, sums] = inputs else {
            return Err(format!("takes 5 inputs, not {}", inputs.len()));
        };
        let expected = check(x, bias, targets)?;
        if **dloss != Type::f32([]) || **sums != expected {
            return Err("the loss's gradient or the rows' sums do not fit".to_owned());
        }
        Ok(vec![(*x).clone(), (*bias).clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let dloss = inputs[0].sum();
        let mut grad = inputs[1] + inputs[2];
        let rows = grad.axis_iter_mut(Axis(0)).zip(inputs[3]).zip(inputs[4]);
        for ((mut row, &target), &sum) in rows {
            if target as i64 == self.ignore_index {
                row.fill(0.0);
            } else {
                row.mapv_inplace(|x| (x - sum).exp());
                let target = row_index("target", target, row.len())?;
                row[target] -= 1.0;
            }
        }
        let grad = grad * dloss;
        let bias = grad.sum_axis(Axis(0));
        Ok(vec![grad, bias])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let ignored = Attribute::Int(self.ignore_index);
        emitter.own(self.name(), inputs, outputs, [("ignore_index", ignored)]);
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
        let x = graph.cast(inputs[1], DType::F32)?;
        let logits = graph.add(x, inputs[2])?;
        let rows = graph.ty(inputs[4]).shape[0].clone();
        let sums = graph.reshape(inputs[4], [rows, 1.into()])?; // [N, 1]
        let log_prob = graph.sub(logits, sums)?;
        let entropy = super::cross_entropy_grad::CrossEntropyGrad {
            ignore_index: self.ignore_index,
        };
        let grad = graph.apply1(entropy, &[inputs[0], log_prob, inputs[3]])?;
        let bias = graph.reduce_sum(grad, &[0], false)?;
        Ok(Some(vec![graph.cast_like(grad, inputs[1])?, bias]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        let op = BiasCrossEntropyGrad { ignore_index: 1 };
        Spec::default()
            .example(
                Example::of(op)
                    .given(f32(SCALAR), &[2.0])
                    .given(f32([2, 2]), &[0.25f64.ln(), 0.75f64.ln() - 1.0, 0.0, 0.0])
                    .given(f32([2]), &[0.0, 1.0])
                    .given(i64([2]), &[0.0, 1.0])
                    .given(f32([2]), &[0.0, 0.0])
                    .gives(&[2, 2], &[-1.5, 1.5, 0.0, 0.0])
                    .gives(&[2], &[-1.5, 1.5])
                    .derivative_refused(),
            )
            .rejects(
                op,
                [f32(SCALAR), f32([2, 3]), f32([3]), i64([2]), f32([3])],
                "rows' sums do not fit",
            )
    }
}
