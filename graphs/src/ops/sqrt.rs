//! Square root.

use super::broadcast;
use super::operator::{Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Square root.
#[derive(Debug, Clone, PartialEq)]
pub struct Sqrt;

impl Graph {
    /// Square root.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn sqrt(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Sqrt, &[x])
    }
}

impl Operator for Sqrt {
    fn name(&self) -> &'static str {
        "Sqrt"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0].mapv(|x| x.sqrt())])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Sqrt", inputs, outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(Sqrt)
                    .given(f32([2]), &[0.0, 2.25])
                    .gives(&[2], &[0.0, 1.5])
                    .derivative_refused(),
            )
            .rejects(Sqrt, [i64([2])], "not i64")
    }
}
