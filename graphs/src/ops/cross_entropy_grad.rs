//! Derivative of the summed cross entropy: `(softmax − one-hot) · d loss`, 0 in ignored rows.

use super::operator::{Operator, Vjp, no_second_derivative};
use super::cross_entropy::CrossEntropy;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
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
                row[target as usize] -= 1.0;
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
