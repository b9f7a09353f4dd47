//! The error function, elementwise; only in the expansion of GELU and of its derivative.

use super::broadcast;
use super::operator::{Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// The error function, elementwise; only in the expansion of GELU and of its derivative.
#[derive(Debug, Clone, PartialEq)]
pub struct Erf;

impl Graph {
    /// The error function, elementwise; only in the expansion of GELU and of its derivative.
    ///
    /// # Errors
    /// Where `x` is not a float.
    pub fn erf(&mut self, x: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Erf, &[x])
    }
}

impl Operator for Erf {
    fn name(&self) -> &'static str {
        "Erf"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![inputs[0].mapv(libm::erf)])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Erf", inputs, outputs);
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
                Example::of(Erf)
                    .given(f32([3]), &[0.0, 40.0, -40.0])
                    .gives(&[3], &[0.0, 1.0, -1.0])
                    .derivative_refused(),
            )
            .rejects(Erf, [i64([2])], "not i64")
    }
}
