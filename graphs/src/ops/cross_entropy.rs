//! Summed cross entropy of logits against target indices, one of which is ignored.

use super::operator::{
    Arithmetic, Emitted, Expansion, Feature, Kernel, Operator, Vjp, exactly, row_index,
};
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
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
        let [logits, targets] = exactly(inputs)?;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::CrossEntropy), Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Maximum, subtract, exp, sum, divide.
        node.flops(5 * node.input(0))
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

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        if emitter.has(KernelId::CrossEntropy) {
            let ignored = [("ignore_index", Attribute::Int(self.ignore_index))];
            emitter.own(KernelId::CrossEntropy, &inputs[0], inputs, outputs, ignored);
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
        let picked = emitter.temporary(DType::F32);
        emitter.standard_with(
            "GatherElements",
            &[log_prob.clone(), column.clone()],
            std::slice::from_ref(&picked),
            [("axis", Attribute::Int(1))],
        );
        let ignored = emitter.index_scalar(self.ignore_index);
        let zero = emitter.float_scalar(0.0);
        let is_ignored = emitter.apply_as("Equal", &[column, ignored], DType::Bool);
        let counted = emitter.temporary(DType::F32);
        emitter.select(&[is_ignored, zero, picked], std::slice::from_ref(&counted));
        let sum = emitter.temporary(DType::F32);
        emitter.total("ReduceSum", &[counted], std::slice::from_ref(&sum));
        emitter.standard("Neg", &[sum], std::slice::from_ref(loss));
        Ok(())
    }
}

/// Derivative of the summed cross entropy: `(softmax − one-hot) · d loss`, 0 in ignored rows.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropyGrad {
    pub ignore_index: i64,
}

impl Operator for CrossEntropyGrad {
    fn name(&self) -> &'static str {
        "CrossEntropyGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dloss, log_prob, targets] = exactly(inputs)?;
        CrossEntropy::check(log_prob, targets)?;
        if **dloss != Type::f32([]) {
            return Err("the loss's gradient is one float".to_owned());
        }
        Ok(vec![(*log_prob).clone()])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![
            Kernel::Own(KernelId::CrossEntropyGrad),
            Kernel::Feature(Feature::ScatterElementsAdds),
        ]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Exp and scale.
        node.flops(2 * node.output(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let dloss = inputs[0].sum();
        let mut grad = inputs[1].mapv(f64::exp);
        for (mut row, &target) in grad.axis_iter_mut(Axis(0)).zip(inputs[2]) {
            if target as i64 == self.ignore_index {
                row.fill(0.0);
            } else {
                let target = row_index("target", target, row.len())?;
                row[target] -= 1.0;
            }
        }
        Ok(vec![grad * dloss])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        if emitter.has(KernelId::CrossEntropyGrad) {
            let ignored = [("ignore_index", Attribute::Int(self.ignore_index))];
            emitter.own(
                KernelId::CrossEntropyGrad,
                &inputs[0],
                inputs,
                outputs,
                ignored,
            );
            return Ok(());
        }
        let [dloss, log_prob, targets] = exactly(inputs)?;
        let column = emitter.unsqueeze(targets, 1); // [N, 1]
        let ignored = emitter.index_scalar(self.ignore_index);
        let zero = emitter.float_scalar(0.0);
        let is_ignored = emitter.apply_as("Equal", &[column.clone(), ignored], DType::Bool);
        let weight = emitter.temporary(DType::F32); // [N, 1]
        let choice = [is_ignored, zero, dloss.clone()];
        emitter.select(&choice, std::slice::from_ref(&weight));
        let softmax = emitter.apply("Exp", std::slice::from_ref(log_prob));
        let scaled = emitter.apply("Mul", &[softmax, weight.clone()]);
        let minus = emitter.apply("Neg", &[weight]);
        emitter.standard_with(
            "ScatterElements",
            &[scaled, column, minus],
            outputs,
            [
                ("axis", Attribute::Int(1)),
                ("reduction", Attribute::Text("add")),
            ],
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let (dloss, log_prob, targets) = (inputs[0], inputs[1], inputs[2]);
        let [count, classes] = &graph.ty(log_prob).shape[..] else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: "takes logits [N, V]".to_owned(),
            });
        };
        let (count, classes) = (count.clone(), classes.clone());
        let column = graph.reshape(targets, [count, 1.into()])?; // [N, 1]
        let ignored = graph.index(self.ignore_index)?;
        let is_ignored = graph.equal(column, ignored)?;
        let zero = graph.scalar_like(log_prob, 0.0)?;
        let weight = graph.where_select(is_ignored, zero, dloss)?; // [N, 1]
        let places = graph.iota(classes)?;
        let hit = graph.equal(places, column)?; // [N, V]
        let softmax = graph.exp(log_prob)?;
        let one = graph.scalar_like(log_prob, 1.0)?;
        let below = graph.sub(softmax, one)?;
        let difference = graph.where_select(hit, below, softmax)?;
        Ok(Some(vec![graph.mul(difference, weight)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn cross_entropy() -> Spec {
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

    const OP: CrossEntropyGrad = CrossEntropyGrad { ignore_index: 1 };

    pub fn cross_entropy_grad() -> Spec {
        Spec::default()
            .example(
                Example::of(OP)
                    .given(f32(SCALAR), &[2.0])
                    .given(f32([2, 2]), &[0.25f64.ln(), 0.75f64.ln(), 0.0, 0.0])
                    .given(i64([2]), &[0.0, 1.0])
                    .gives(&[2, 2], &[-1.5, 1.5, 0.0, 0.0])
                    .derivative_refused(),
            )
            .rejects(
                OP,
                [f32([1]), f32([2, 3]), i64([2])],
                "gradient is one float",
            )
            .rejects(OP, [f32(SCALAR), f32([2, 3]), i64([3])], "i64[N]")
    }

    #[test]
    fn it_is_the_derivative_of_cross_entropy() {
        let forward = Example::of(CrossEntropy { ignore_index: 1 })
            .floats([4, 5])
            .given(i64([4]), &[2.0, 1.0, 4.0, 2.0]);
        let log_prob = forward.evaluate().remove(1);
        let dloss = array(&[], &[0.7]);
        let targets = forward.arrays().remove(1);
        let found = evaluate(&OP.into(), &[dloss.clone(), log_prob, targets]);
        let expected = forward.difference(&[Some(dloss), None], 0);
        assert_close(&found[0], &expected, 1e-7, "logits");
    }
}
