//! Summed cross entropy of logits against target indices, one of which is ignored.

use super::cross_entropy_grad::CrossEntropyGrad;
use super::operator::{Operator, Vjp, row_index};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use mpnet_plan::KernelId;
use ndarray::Axis;

/// Summed cross entropy of logits against target indices, one of which is ignored.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy {
    /// Rows with this target count nothing.
    pub ignore_index: i64,
}

impl CrossEntropy {
    /// Logits `[N, V]` and targets i64 `[N]`.
    pub(super) fn check(logits: &Type, targets: &Type) -> Result<(), String> {
        let shapes = logits.rank() == 2 && targets.shape == logits.shape[..1];
        if shapes && logits.dtype == DType::F32 && targets.dtype == DType::I64 {
            Ok(())
        } else {
            Err("takes logits f32[N, V] and targets i64[N]".to_owned())
        }
    }
}

impl Operator for CrossEntropy {
    fn name(&self) -> &'static str {
        "CrossEntropy"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [logits, targets] = inputs else {
            return Err(format!("takes 2 inputs, not {}", inputs.len()));
        };
        CrossEntropy::check(logits, targets)?;
        // The loss, and the log probabilities that the derivative reads.
        Ok(vec![Type::f32([]), (*logits).clone()])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let op = CrossEntropyGrad {
            ignore_index: self.ignore_index,
        };
        let inputs = [at.grad()?, at.output(1), at.input(1)];
        Ok(vec![Some(graph.apply1(op, &inputs)?), None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut log_prob = inputs[0].clone();
        for mut row in log_prob.lanes_mut(Axis(1)) {
            let max = row.fold(f64::NEG_INFINITY, |a, &b| a.max(b));
            let log_sum = row.fold(0.0, |s, &x| s + (x - max).exp()).ln() + max;
            row.mapv_inplace(|x| x - log_sum);
        }
        let mut loss = 0.0;
        for (row, &target) in log_prob.axis_iter(Axis(0)).zip(inputs[1]) {
            if target as i64 != self.ignore_index {
                loss -= row[row_index("target", target, row.len())?];
            }
        }
        Ok(vec![ndarray::arr0(loss).into_dyn(), log_prob])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        if emitter.has(KernelId::CrossEntropy) {
            let ignored = [("ignore_index", Attribute::Int(self.ignore_index))];
            emitter.own(self.name(), inputs, outputs, ignored);
            return Ok(());
        }
        // LogSoftmax is vectorised and threaded everywhere; SoftmaxCrossEntropyLoss on the CPU is
        // neither (11 times slower at [304, 30592] on ONNX Runtime 1.19.2).
        let [loss, log_prob] = outputs else {
            return Err("has 2 outputs".to_owned());
        };
        let targets = inputs[1].clone();
        emitter.standard_with(
            "LogSoftmax",
            &inputs[..1],
            std::slice::from_ref(log_prob),
            [("axis", Attribute::Int(-1))],
        );
        let column = emitter.unsqueeze(&targets, 1); // [N, 1]
        let picked = emitter.temporary();
        emitter.standard_with(
            "GatherElements",
            &[log_prob.clone(), column.clone()],
            std::slice::from_ref(&picked),
            [("axis", Attribute::Int(1))],
        );
        let ignored = emitter.index_scalar(self.ignore_index);
        let zero = emitter.float_scalar(0.0);
        let is_ignored = emitter.apply("Equal", &[column, ignored]);
        let counted = emitter.apply("Where", &[is_ignored, zero, picked]);
        let sum = emitter.temporary();
        emitter.total("ReduceSum", &[counted], std::slice::from_ref(&sum));
        emitter.standard("Neg", &[sum], std::slice::from_ref(loss));
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let loss = || Example::of(CrossEntropy { ignore_index: 1 });
        let half = -std::f64::consts::LN_2;
        Spec::default()
            .example(
                loss()
                    .given(f32([2, 2]), &[3.0, 3.0, 900.0, 900.0])
                    .given(i64([2]), &[0.0, 1.0])
                    .gives(&[], &[-half])
                    .gives(&[2, 2], &[half; 4])
                    .differentiable(),
            )
            .example(
                loss()
                    .floats([4, 5])
                    .given(i64([4]), &[2.0, 1.0, 4.0, 2.0])
                    .differentiable(),
            )
            // The log probabilities are for the derivative alone.
            .example(
                loss()
                    .floats([2, 3])
                    .indices([2], 3)
                    .reading(&[0, 1])
                    .derivative_refused(),
            )
            .rejects(
                CrossEntropy { ignore_index: 1 },
                [f32([2, 3]), i64([3])],
                "i64[N]",
            )
            .rejects(
                CrossEntropy { ignore_index: 1 },
                [f32([2, 3]), f32([2])],
                "i64[N]",
            )
    }

    #[test]
    fn a_target_outside_the_vocabulary_is_an_error() {
        for target in [-1.0, 2.0] {
            let inputs = [array(&[1, 2], &[0.0, 0.0]), array(&[1], &[target])];
            let outputs =
                CrossEntropy { ignore_index: 1 }.evaluate(&SIZES, &[&inputs[0], &inputs[1]]);
            assert_eq!(outputs, Err(format!("target {target} is not below 2")));
        }
    }
}
