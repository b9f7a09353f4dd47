//! AdamW's update of one segment of parameters in one operator.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};

/// AdamW as PyTorch has it, over vectors f32 `[N]`: parameters, gradients, first and second moments;
/// then, f32 `[]`, the gradients' norm and factor, the step's size `lr / (1 − β1ᵗ)`, the decay
/// `1 − lr · weight_decay` and the second correction `1 / √(1 − β2ᵗ)`.
///
/// Gives new parameters and moments; the old ones where the norm is not finite.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
}

/// Of them the first four are vectors.
const INPUTS: usize = 9;

impl Operator for AdamWStep {
    fn name(&self) -> &'static str {
        "AdamWStep"
    }

    fn attributes(&self) -> String {
        format!(" {} {} {}", self.beta1, self.beta2, self.epsilon)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if inputs.len() != INPUTS {
            return Err(format!("takes {INPUTS} inputs, not {}", inputs.len()));
        }
        let (vectors, numbers) = inputs.split_at(4);
        let vector = Type::f32(vectors[0].shape.iter().cloned());
        if vector.rank() != 1 || vectors.iter().any(|v| **v != vector) {
            return Err("takes four vectors f32 of one length".to_owned());
        }
        if numbers.iter().any(|n| **n != Type::f32([])) {
            return Err("takes five numbers f32".to_owned());
        }
        Ok(vec![vector.clone(), vector.clone(), vector])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [parameter, gradient, first, second, numbers @ ..] = inputs else {
            return Err(format!("takes {INPUTS} inputs"));
        };
        let number = |i: usize| numbers[i].sum();
        let (norm, factor, step, decay, correction) =
            (number(0), number(1), number(2), number(3), number(4));
        if !norm.is_finite() {
            return Ok([parameter, first, second].map(|x| (*x).clone()).to_vec());
        }
        let (beta1, beta2) = (f64::from(self.beta1), f64::from(self.beta2));
        let gradient = *gradient * factor;
        let first = *first * beta1 + &gradient * (1.0 - beta1);
        let second = *second * beta2 + &gradient * &gradient * (1.0 - beta2);
        let denominator = second.mapv(|v| v.sqrt() * correction + f64::from(self.epsilon));
        let parameter = *parameter * decay - &first / &denominator * step;
        Ok(vec![parameter, first, second])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let attributes = [
            ("beta1", Attribute::Float(self.beta1)),
            ("beta2", Attribute::Float(self.beta2)),
            ("epsilon", Attribute::Float(self.epsilon)),
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
        let &[
            parameter,
            gradient,
            first,
            second,
            norm,
            factor,
            step,
            decay,
            correction,
        ] = inputs
        else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes {INPUTS} inputs, not {}", inputs.len()),
            });
        };
        let g = graph;
        let infinity = g.scalar(f64::INFINITY)?;
        let finite = g.less(norm, infinity)?;
        let gradient = g.mul(gradient, factor)?;
        let kept = g.scale(first, f64::from(self.beta1))?;
        let fresh = g.scale(gradient, 1.0 - f64::from(self.beta1))?;
        let new_first = g.add(kept, fresh)?;
        let kept = g.scale(second, f64::from(self.beta2))?;
        let square = g.mul(gradient, gradient)?;
        let fresh = g.scale(square, 1.0 - f64::from(self.beta2))?;
        let new_second = g.add(kept, fresh)?;
        let root = g.sqrt(new_second)?;
        let root = g.mul(root, correction)?;
        let epsilon = g.scalar(f64::from(self.epsilon))?;
        let denominator = g.add(root, epsilon)?;
        let direction = g.div(new_first, denominator)?;
        let change = g.mul(direction, step)?;
        let decayed = g.mul(parameter, decay)?;
        let new_parameter = g.sub(decayed, change)?;
        let chosen = [
            g.where_select(finite, new_parameter, parameter)?,
            g.where_select(finite, new_first, first)?,
            g.where_select(finite, new_second, second)?,
        ];
        Ok(Some(chosen.to_vec()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn spec() -> Spec {
        let op = AdamWStep {
            beta1: 0.5,
            beta2: 0.75,
            epsilon: 0.0,
        };
        let with = |norm: f64| {
            Example::of(op)
                .given(f32([2]), &[1.0, 2.0])
                .given(f32([2]), &[2.0, -4.0])
                .given(f32([2]), &[0.0, 1.0])
                .given(f32([2]), &[0.0, 0.0])
                .given(f32(SCALAR), &[norm])
                .given(f32(SCALAR), &[0.5])
                .given(f32(SCALAR), &[0.1])
                .given(f32(SCALAR), &[0.5])
                .given(f32(SCALAR), &[2.0])
                .derivative_refused()
        };
        // Gradients 1 and -2: roots of the second moments are 0.5 and 1, doubled by the correction.
        Spec::default()
            .example(
                with(4.5)
                    .gives(&[2], &[0.5 - 0.1 * 0.5, 1.0 + 0.1 * 0.25])
                    .gives(&[2], &[0.5, -0.5])
                    .gives(&[2], &[0.25, 1.0]),
            )
            .example(
                with(f64::INFINITY)
                    .gives(&[2], &[1.0, 2.0])
                    .gives(&[2], &[0.0, 1.0])
                    .gives(&[2], &[0.0, 0.0]),
            )
            .rejects(
                op,
                (0..4)
                    .map(|i| f32([2 + i / 3]))
                    .chain((0..5).map(|_| f32(SCALAR))),
                "of one length",
            )
            .rejects(op, (0..9).map(|_| f32([2])), "five numbers")
    }
}
