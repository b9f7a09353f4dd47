//! Summed cross entropy of logits that lack their bias, with the best class of each row, in one
//! operator that keeps no probabilities.

use super::cross_entropy::CrossEntropy;
use super::operator::{
    Arithmetic, Emitted, Expansion, Kernel, Operator, Vjp, exactly, places, row_index,
};
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::Axis;

/// Summed cross entropy of logits `x + bias`, of products `x` `[N, V]` and a bias f32 `[V]`, against
/// targets i64 `[N]`, one of which is ignored.
///
/// Gives the loss, every row's best class i64 `[N]` (the first of equal ones) and, for the derivative,
/// the logarithm of its sum of exponentials, f32 `[N]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasCrossEntropy {
    /// Rows with this target count nothing.
    pub ignore_index: i64,
}

places! {
    /// The inputs of [`BiasCrossEntropy`].
    Inputs: X, BIAS, TARGETS
}

places! {
    /// The inputs of [`BiasCrossEntropyGrad`].
    GradInputs: GRADIENT, X, BIAS, TARGETS, SUMS
}

/// Checks products, bias and targets, and gives the type of the rows' sums.
pub(super) fn check(x: &Type, bias: &Type, targets: &Type) -> Result<Type, String> {
    let [n, v] = &x.shape[..] else {
        return Err("takes products [N, V]".to_owned());
    };
    let fits = x.dtype.is_float()
        && *bias == Type::f32([v.clone()])
        && *targets == Type::new(DType::I64, [n.clone()]);
    match fits {
        true => Ok(Type::f32([n.clone()])),
        false => Err("takes products [N, V], a bias f32[V] and targets i64[N]".to_owned()),
    }
}

/// Logarithm of a row's sum of exponentials.
pub(super) fn log_sum(row: ndarray::ArrayView1<f64>) -> f64 {
    let peak = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
    row.fold(0.0, |s, &x| s + (x - peak).exp()).ln() + peak
}

impl Operator for BiasCrossEntropy {
    fn name(&self) -> &'static str {
        "BiasCrossEntropy"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [x, bias, targets] = exactly(inputs)?;
        let sums = check(x, bias, targets)?;
        Ok(vec![Type::f32([]), (*targets).clone(), sums])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let op = BiasCrossEntropyGrad {
            ignore_index: self.ignore_index,
        };
        let inputs = [
            at.grad()?,
            at.input(0),
            at.input(1),
            at.input(2),
            at.output(2),
        ];
        let grads = graph.apply(op, &inputs)?;
        Ok(vec![Some(grads[0]), Some(grads[1]), None])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::BiasCrossEntropy)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![Inputs::BIAS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Bias, maximum, subtract, exp, sum.
        node.flops(5 * node.input(Inputs::X))
    }

    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let logits = inputs[0] + inputs[1];
        let entropy = CrossEntropy {
            ignore_index: self.ignore_index,
        };
        let loss = entropy.evaluate(sizes, &[&logits, inputs[2]])?.remove(0);
        let best = super::reduce::ArgMax.evaluate(sizes, &[&logits])?.remove(0);
        let rows = logits.lanes(Axis(1)).into_iter().map(log_sum);
        Ok(vec![
            loss,
            best,
            rows.collect::<ndarray::Array1<f64>>().into_dyn(),
        ])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let ignored = Attribute::Int(self.ignore_index);
        let kernel = KernelId::BiasCrossEntropy;
        let attributes = [("ignore_index", ignored)];
        emitter.own(kernel, &inputs[Inputs::X], inputs, outputs, attributes);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let x = graph.cast(inputs[0], DType::F32)?;
        let logits = graph.add(x, inputs[1])?;
        let entropy = CrossEntropy {
            ignore_index: self.ignore_index,
        };
        let outputs = graph.apply(entropy, &[logits, inputs[2]])?;
        let best = graph.argmax(logits)?;
        // A logit is its log probability and the row's sum.
        let rest = graph.sub(logits, outputs[1])?; // [N, V]
        let sums = graph.reduce_sum(rest, &[1], false)?;
        let classes = graph.ty(logits).shape[1].as_const();
        let classes = classes.ok_or_else(|| GraphError::Emit {
            op: self.name(),
            reason: "the number of classes is not fixed".to_owned(),
        })?;
        let sums = graph.scale(sums, 1.0 / classes as f64)?;
        Ok(Some(vec![outputs[0], best, sums]))
    }
}

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
        let [dloss, x, bias, targets, sums] = exactly(inputs)?;
        let expected = check(x, bias, targets)?;
        if **dloss != Type::f32([]) || **sums != expected {
            return Err("the loss's gradient or the rows' sums do not fit".to_owned());
        }
        Ok(vec![(*x).clone(), (*bias).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::BiasCrossEntropyGrad)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::PerInput {
            full: vec![GradInputs::GRADIENT, GradInputs::BIAS, GradInputs::SUMS],
            gives_stream: false,
        }
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Bias, subtract, exp, scale, the bias' gradient.
        node.flops(5 * node.output(0))
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let ignored = Attribute::Int(self.ignore_index);
        let kernel = KernelId::BiasCrossEntropyGrad;
        let attributes = [("ignore_index", ignored)];
        emitter.own(kernel, &inputs[GradInputs::X], inputs, outputs, attributes);
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let x = graph.cast(inputs[1], DType::F32)?;
        let logits = graph.add(x, inputs[2])?;
        let rows = graph.ty(inputs[4]).shape[0].clone();
        let sums = graph.reshape(inputs[4], [rows, 1.into()])?; // [N, 1]
        let log_prob = graph.sub(logits, sums)?;
        let entropy = super::cross_entropy::CrossEntropyGrad {
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

    pub fn bias_cross_entropy() -> Spec {
        let op = BiasCrossEntropy { ignore_index: 1 };
        let half = std::f64::consts::LN_2;
        Spec::default()
            .example(
                Example::of(op)
                    .given(f32([2, 2]), &[3.0, 2.0, 900.0, 900.0])
                    .given(f32([2]), &[0.0, 1.0])
                    .given(i64([2]), &[0.0, 1.0])
                    .gives(&[], &[half])
                    .gives(&[2], &[0.0, 1.0])
                    .gives(&[2], &[3.0 + half, 901.0 + (1.0 + (-1.0f64).exp()).ln()])
                    .differentiable(),
            )
            .example(
                Example::of(op)
                    .floats([4, 5])
                    .floats([5])
                    .given(i64([4]), &[2.0, 1.0, 4.0, 2.0])
                    .differentiable(),
            )
            .example(
                Example::of(op)
                    .floats([2, 3])
                    .floats([3])
                    .indices([2], 3)
                    .reading(&[0, 2])
                    .derivative_refused(),
            )
            .rejects(op, [f32([2, 3]), f32([2]), i64([2])], "a bias f32[V]")
            .rejects(op, [f32([6]), f32([6]), i64([6])], "[N, V]")
    }

    pub fn bias_cross_entropy_grad() -> Spec {
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
