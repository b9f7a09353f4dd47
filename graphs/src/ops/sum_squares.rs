//! Sum of the squares of all elements, for the norm of the gradients.

use super::broadcast;
use super::operator::{Operator, Vjp, no_second_derivative};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Sum of the squares of all elements, for the norm of the gradients.
#[derive(Debug, Clone, PartialEq)]
pub struct SumSquares;

impl Operator for SumSquares {
    fn name(&self) -> &'static str {
        "SumSquares"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::unary(inputs)?;
        Ok(vec![Type::f32([])])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Err(no_second_derivative(self.name()))
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        Ok(vec![
            ndarray::arr0(inputs[0].mapv(|x| x * x).sum()).into_dyn(),
        ])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.total("ReduceSumSquare", inputs, outputs);
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
                Example::of(SumSquares)
                    .given(f32([2, 2]), &[1.0, -2.0, 3.0, -4.0])
                    .gives(&[], &[30.0])
                    .derivative_refused(),
            )
            .rejects(SumSquares, [i64([2])], "not i64")
    }
}
