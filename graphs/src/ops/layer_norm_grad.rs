//! Derivative of layer normalization with respect to its input, scale and bias.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, DType, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use ndarray::Axis;

/// Derivative of layer normalization with respect to its input, scale and bias.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormGrad;

impl Operator for LayerNormGrad {
    fn name(&self) -> &'static str {
        "LayerNormGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [dy, x, scale, mean, inverse] = inputs else {
            return Err(format!("takes 5 inputs, not {}", inputs.len()));
        };
        if dy != x || mean != inverse || scale.dtype != DType::F32 {
            return Err("gradient, input and statistics do not fit".to_owned());
        }
        Ok(vec![(*x).clone(), (*scale).clone(), (*scale).clone()])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let [dy, x, scale, mean, inverse] = inputs else {
            return Err("takes 5 inputs".to_owned());
        };
        let last = Axis(x.ndim() - 1);
        let normal = (*x - *mean) * *inverse;
        let rows = |a: Array| (0..x.ndim() - 1).fold(a, |a, _| a.sum_axis(Axis(0)));
        let dscale = rows(*dy * &normal);
        let dbias = rows((*dy).clone());
        let g = *dy * *scale;
        let mean_of = |a: &Array| a.mean_axis(last).map(|m| m.insert_axis(last));
        let a = mean_of(&g).ok_or("empty dimension")?;
        let b = mean_of(&(&g * &normal)).ok_or("empty dimension")?;
        let dx = (g - a - normal * b) * *inverse;
        Ok(vec![dx, dscale, dbias])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.contrib(
            "LayerNormalizationGrad",
            inputs,
            outputs,
            [("axis", Attribute::Int(-1))],
        );
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Training
    }
}
