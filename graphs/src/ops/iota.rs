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

    fn infer(&self, _: &[&Type]) -> Result<Vec<Type>, String> {
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

    fn emit(
        &self,
        emitter: &mut Emitter,
        _: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let len = emitter.dim_scalar(&self.len)?;
        let zero = emitter.index_scalar(0);
        let one = emitter.index_scalar(1);
        emitter.standard("Range", &[zero, len, one], outputs);
        Ok(())
    }
}
