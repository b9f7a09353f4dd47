//! The indices 0, 1, … of a symbolic dimension.

use super::operator::{Operator, Vjp};
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;

/// The indices 0, 1, … of a symbolic dimension, i64 `[len]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Iota {
    pub len: Dim,
}

impl Graph {
    /// `[0, 1, …, len − 1]`.
    ///
    /// # Errors
    /// Never in practice.
    pub fn iota(&mut self, len: Dim) -> Result<ValueId, GraphError> {
        self.apply1(Iota { len }, &[])
    }
}

impl Operator for Iota {
    fn name(&self) -> &'static str {
        "Iota"
    }

    fn attributes(&self) -> String {
        format!(" {}", self.len)
    }

    fn dims(&self) -> Vec<&Dim> {
        vec![&self.len]
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        if !inputs.is_empty() {
            return Err("takes no input".to_owned());
        }
        Ok(vec![Type::new(DType::I64, [self.len.clone()])])
    }

    fn vjp(&self, _: &mut Graph, _: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        Ok(Vec::new())
    }

    fn evaluate(&self, bindings: &Bindings, _: &[&Array]) -> Result<Vec<Array>, String> {
        let len = self.len.eval(bindings).max(0);
        Ok(vec![
            ndarray::Array1::from_iter((0..len).map(|i| i as f64)).into_dyn(),
        ])
    }

    fn emit(&self, emitter: &mut Emitter, _: &[String], outputs: &[String]) -> Result<(), String> {
        let len = emitter.dim_scalar(&self.len)?;
        let zero = emitter.index_scalar(0);
        let one = emitter.index_scalar(1);
        emitter.standard("Range", &[zero, len, one], outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        let of = |len: Dim| Example::of(Iota { len });
        let values = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        Spec::default()
            .example(
                of(Dim::from(L) + P.into())
                    .gives(&[8], &values)
                    .not_differentiable(),
            )
            .example(of(3.into()).gives(&[3], &values[..3]).not_differentiable())
            .rejects(Iota { len: L.into() }, [i64([2])], "takes no input")
    }
}
