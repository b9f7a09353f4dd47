//! Elementwise product, broadcasting.

use super::broadcast;
use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// Elementwise product, broadcasting.
#[derive(Debug, Clone, PartialEq)]
pub struct Mul;

impl Graph {
    /// Elementwise product, broadcasting.
    ///
    /// # Errors
    /// Where the shapes do not broadcast.
    pub fn mul(&mut self, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Mul, &[a, b])
    }
}

impl Operator for Mul {
    fn name(&self) -> &'static str {
        "Mul"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        broadcast::numbers(inputs)
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let grad = at.grad()?;
        Ok(vec![
            Some(graph.mul(grad, at.input(1))?),
            Some(graph.mul(grad, at.input(0))?),
        ])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        broadcast::evaluate(inputs, |a, b| a * b)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Mul", inputs, outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ir::Dim;
    use crate::ops::testing::*;
    use proptest::prelude::*;

    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(Mul)
                    .given(i64([2]), &[1.0, 2.0])
                    .given(i64([2]), &[4.0, 5.0])
                    .gives(&[2], &[4.0, 10.0])
                    .derivative_unchecked(),
            )
            .example(
                Example::of(Mul)
                    .floats([Dim::from(B), 1.into(), 3.into()])
                    .floats([Dim::from(L), 1.into()])
                    .differentiable(),
            )
            .rejects(
                Mul,
                [f32([2, 3]), f32([2])],
                "dimension 1 is 3 in one and 2 in the other",
            )
            .rejects(Mul, [f32([2]), i64([2])], "different element types")
            .rejects(Mul, [bool([2]), bool([2])], "not bool")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn gradients_undo_any_broadcast((a, b) in broadcastable(), seed: u64) {
            Example::seeded(Mul, seed).floats(a).floats(b).differentiable().check();
        }
    }
}
