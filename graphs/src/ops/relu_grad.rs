//! Derivative of the rectifier: `dy` where its output `y` is positive.

use super::operator::{Kernel, Operator, Vjp, no_second_derivative};
use super::broadcast;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
use ndarray::Zip;

/// Derivative of the rectifier: `dy` where its output `y` is positive.
#[derive(Debug, Clone, PartialEq)]
pub struct ReluGrad;

impl Operator for ReluGrad {
    fn name(&self) -> &'static str {
        "ReluGrad"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::same_floats(inputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut dx = inputs[0].clone();
        Zip::from(&mut dx).and(inputs[1]).for_each(|d, &y| {
            if y <= 0.0 {
                *d = 0.0;
            }
        });
        Ok(vec![dx])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.contrib("ReluGrad", inputs, outputs, []);
        Ok(())
    }

    fn kernel(&self) -> Kernel {
        Kernel::Training
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let (dy, y) = (inputs[0], inputs[1]);
        let zero = graph.scalar_like(y, 0.0)?;
        let positive = graph.less(zero, y)?;
        Ok(Some(vec![graph.where_select(positive, dy, zero)?]))
    }
}
