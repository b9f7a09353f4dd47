//! AdamW's update of a vector of parameters and of its moments.

use super::operator::{Arithmetic, Emitted, Expansion, Kernel, Operator};
use crate::ir::{Array, Bindings, Cost, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;

/// AdamW's update of `parameter`, `first` and `second` moment `[N]` by `gradient` `[N]`; where the
/// gradient's norm is not finite nothing changes.
///
/// Further inputs have no dimensions: `norm`; `factor`, which the gradient is multiplied by;
/// `step_size`, `lr / (1 − β1^t)`; `decay`, which the parameter is multiplied by; and
/// `second_correction`, `1 / √(1 − β2^t)`.
#[derive(Debug, Clone, PartialEq)]
pub struct AdamWUpdate {
    pub beta1: f32,
    pub beta2: f32,
    pub epsilon: f32,
}

/// Vectors among the inputs, and the scalars behind them.
const VECTORS: usize = 4;
const SCALARS: usize = 5;

impl Operator for AdamWUpdate {
    fn name(&self) -> &'static str {
        "AdamWUpdate"
    }

    fn attributes(&self) -> String {
        format!(" {} {} {}", self.beta1, self.beta2, self.epsilon)
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if inputs.len() != VECTORS + SCALARS {
            return Err(format!("takes {} inputs", VECTORS + SCALARS));
        }
        let (vectors, scalars) = inputs.split_at(VECTORS);
        let vector = vectors[0];
        if vector.rank() != 1 || *vector != Type::f32(vector.shape.clone()) {
            return Err("takes vectors of f32".to_owned());
        }
        if vectors.iter().any(|ty| *ty != vector) || scalars.iter().any(|ty| **ty != Type::f32([]))
        {
            return Err("takes vectors of one size and single floats".to_owned());
        }
        Ok(vec![vector.clone(); VECTORS - 1])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Own(KernelId::AdamWUpdate)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Scale, two means of two products and a sum each, root, correct, shift, divide, step, decay, subtract.
        node.flops(15 * node.input(0))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [parameter, first, second, gradient, scalars @ ..] = inputs else {
            return Err("takes vectors".to_owned());
        };
        let scalars: Vec<f64> = scalars.iter().map(|scalar| scalar.sum()).collect();
        let [norm, factor, step_size, decay, second_correction] = scalars[..] else {
            return Err("takes five numbers".to_owned());
        };
        if !norm.is_finite() {
            let unchanged = [parameter, first, second];
            return Ok(unchanged.map(|array| (*array).clone()).to_vec());
        }
        let [beta1, beta2] = [self.beta1, self.beta2].map(f64::from);
        let gradient = *gradient * factor;
        let first = *first * beta1 + &gradient * (1.0 - beta1);
        let second = *second * beta2 + &gradient * &gradient * (1.0 - beta2);
        let denominator = second.mapv(f64::sqrt) * second_correction + f64::from(self.epsilon);
        let parameter = *parameter * decay - &first / denominator * step_size;
        Ok(vec![parameter, first, second])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let attributes = [
            ("beta1", Attribute::Float(self.beta1)),
            ("beta2", Attribute::Float(self.beta2)),
            ("epsilon", Attribute::Float(self.epsilon)),
        ];
        emitter.own(
            KernelId::AdamWUpdate,
            &inputs[0],
            inputs,
            outputs,
            attributes,
        );
        Ok(())
    }

    fn expand(&self, g: &mut Graph, inputs: &[ValueId]) -> Expansion {
        let &[
            parameter,
            first,
            second,
            gradient,
            norm,
            factor,
            step_size,
            decay,
            second_correction,
        ] = inputs
        else {
            return Err(GraphError::Emit {
                op: self.name(),
                reason: format!("takes {} inputs", VECTORS + SCALARS),
            });
        };
        let gradient = g.mul(gradient, factor)?;
        let kept = g.scale(first, f64::from(self.beta1))?;
        let fresh = g.scale(gradient, 1.0 - f64::from(self.beta1))?;
        let new_first = g.add(kept, fresh)?;
        let kept = g.scale(second, f64::from(self.beta2))?;
        let square = g.mul(gradient, gradient)?;
        let fresh = g.scale(square, 1.0 - f64::from(self.beta2))?;
        let new_second = g.add(kept, fresh)?;
        let root = g.sqrt(new_second)?;
        let root = g.mul(root, second_correction)?;
        let epsilon = g.scalar(f64::from(self.epsilon))?;
        let denominator = g.add(root, epsilon)?;
        let direction = g.div(new_first, denominator)?;
        let change = g.mul(direction, step_size)?;
        let decayed = g.mul(parameter, decay)?;
        let new_parameter = g.sub(decayed, change)?;
        let infinity = g.scalar(f64::INFINITY)?;
        let finite = g.less(norm, infinity)?;
        let mut results = Vec::with_capacity(VECTORS - 1);
        for (new, old) in [
            (new_parameter, parameter),
            (new_first, first),
            (new_second, second),
        ] {
            results.push(g.where_select(finite, new, old)?);
        }
        Ok(Some(results))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    const OP: AdamWUpdate = AdamWUpdate {
        beta1: 0.5,
        beta2: 0.75,
        epsilon: 0.5,
    };

    fn example(norm: f64) -> Example {
        let mut example = Example::of(OP)
            .given(f32([2]), &[1.0, -2.0])
            .given(f32([2]), &[2.0, 0.0])
            .given(f32([2]), &[4.0, 0.0])
            .given(f32([2]), &[1.0, 4.0]);
        // Norm, factor, step size, decay, correction.
        for scalar in [norm, 2.0, 0.5, 0.25, 0.5] {
            example = example.given(f32(SCALAR), &[scalar]);
        }
        example.derivative_refused()
    }

    pub fn adamw_update() -> Spec {
        let types = |last: Type| {
            let mut types = vec![f32([2]); 4];
            types.extend(vec![f32(SCALAR); 4]);
            types.push(last);
            types
        };
        Spec::default()
            // Moments [1, 0] + [1, 4] and [3, 0] + [1, 16]; the root halved is [1, 2].
            .example(example(3.0).gives(&[2], &[0.25 - 0.5 * 2.0 / 1.5, -0.5 - 0.5 * 4.0 / 2.5]))
            .example(example(f64::INFINITY).gives(&[2], &[1.0, -2.0]))
            .rejects(OP, types(f32([1])), "single floats")
            .rejects(OP, [f32([2, 2])], "takes 9 inputs")
    }
}
