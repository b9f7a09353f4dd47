//! Derivative of the summed cross entropy: `(softmax − one-hot) · d loss`, 0 in ignored rows.

use super::cross_entropy::CrossEntropy;
use super::operator::{Operator, Vjp, no_second_derivative, row_index};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use mpnet_plan::KernelId;
use ndarray::Axis;

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
        let [dloss, log_prob, targets] = inputs else {
            return Err(format!("takes 3 inputs, not {}", inputs.len()));
        };
        CrossEntropy::check(log_prob, targets)?;
        if **dloss != Type::f32([]) {
            return Err("the loss's gradient is one float".to_owned());
        }
        Ok(vec![(*log_prob).clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
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

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        if emitter.has(KernelId::CrossEntropyGrad) {
            let ignored = [("ignore_index", Attribute::Int(self.ignore_index))];
            emitter.own(self.name(), inputs, outputs, ignored);
            return Ok(());
        }
        let [dloss, log_prob, targets] = inputs else {
            return Err("takes 3 inputs".to_owned());
        };
        let column = emitter.unsqueeze(targets, 1); // [N, 1]
        let ignored = emitter.index_scalar(self.ignore_index);
        let zero = emitter.float_scalar(0.0);
        let is_ignored = emitter.apply("Equal", &[column.clone(), ignored]);
        let weight = emitter.apply("Where", &[is_ignored, zero, dloss.clone()]); // [N, 1]
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

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
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
    const OP: CrossEntropyGrad = CrossEntropyGrad { ignore_index: 1 };

    pub fn spec() -> Spec {
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
