//! Layer normalization without its statistics: what providers for inference have.

use super::layer_norm::LayerNorm;
use super::operator::{Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// The first output of [`LayerNorm`].
#[derive(Debug, Clone, PartialEq)]
pub struct LayerNormOutput {
    pub epsilon: f32,
}

impl LayerNormOutput {
    fn whole(&self) -> LayerNorm {
        LayerNorm {
            epsilon: self.epsilon,
        }
    }
}

impl Operator for LayerNormOutput {
    fn name(&self) -> &'static str {
        "LayerNormOutput"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let mut outputs = self.whole().infer(inputs)?;
        outputs.truncate(1);
        Ok(outputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut outputs = self.whole().evaluate(bindings, inputs)?;
        outputs.truncate(1);
        Ok(outputs)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        self.whole().emit(emitter, inputs, outputs)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let op = LayerNormOutput { epsilon: 0.25 };
        let inverse = 1.0 / 1.25f64.sqrt();
        Spec::default()
            .example(
                Example::of(op.clone())
                    .given(f32([1, 2]), &[2.0, 4.0])
                    .given(f32([2]), &[1.0, 10.0])
                    .given(f32([2]), &[0.0, 5.0])
                    .gives(&[1, 2], &[-inverse, 10.0 * inverse + 5.0])
                    .derivative_refused(),
            )
            .rejects(op, [f32([2, 3]), f32([2]), f32([3])], "must be [3]")
    }
}
