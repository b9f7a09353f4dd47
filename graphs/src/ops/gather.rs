//! Rows of a table: `table[indices]`, as an embedding.

use super::operator::{Operator, Vjp};
use super::scatter_add::ScatterAdd;
use crate::ir::{Array, Bindings, DType, Dim, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::Emitter;
use ndarray::{Axis, IxDyn};

/// Up to this many rows the gradient is a product with one-hot rows, which no scatter and no sort
/// of millions of indices can match; the relative bias has 32.
const ONE_HOT_ROWS: usize = 128;

/// Rows of a table: `table[indices]`, as an embedding.
#[derive(Debug, Clone, PartialEq)]
pub struct Gather;

impl Graph {
    /// `table[indices]`: `[N, rest…]` and i64 `[dims…]` to `[dims…, rest…]`.
    ///
    /// # Errors
    /// Where the indices are no integers.
    pub fn gather(&mut self, table: ValueId, indices: ValueId) -> Result<ValueId, GraphError> {
        self.apply1(Gather, &[table, indices])
    }
}

impl Operator for Gather {
    fn name(&self) -> &'static str {
        "Gather"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [table, indices] = inputs else {
            return Err(format!("takes 2 inputs, not {}", inputs.len()));
        };
        if table.rank() == 0 || indices.dtype != DType::I64 {
            return Err("takes a table and i64 indices".to_owned());
        }
        let shape = indices.shape.iter().chain(&table.shape[1..]).cloned();
        Ok(vec![Type::new(table.dtype, shape)])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let (table, indices, dy) = (at.input(0), at.input(1), at.grad()?);
        if !graph.ty(table).dtype.is_float() {
            return Ok(vec![None, None]);
        }
        let shape = graph.ty(table).shape.clone();
        let width = Dim::product(&shape[1..]);
        let index_shape = graph.ty(indices).shape.clone();
        let grad = match shape[0].as_const() {
            Some(rows) if rows <= ONE_HOT_ROWS && index_shape.len() > 1 => {
                // The first index dimension stays apart, so that kernels have a batch to share out.
                let batch = index_shape[0].clone();
                let inner = Dim::product(&index_shape[1..]);
                let identity = (0..rows * rows).map(|i| f64::from(i % (rows + 1) == 0));
                let identity = graph.constant(DType::F32, &[rows, rows], identity)?;
                let indices = graph.reshape(indices, [batch.clone(), inner.clone()])?;
                let one_hot = graph.gather(identity, indices)?; // [batch, inner, rows]
                let dy = graph.reshape(dy, [batch, inner, width])?;
                let product = super::matmul::MatMul {
                    trans_a: true,
                    ..Default::default()
                };
                let partial = graph.matmul(one_hot, dy, product)?; // [batch, rows, width]
                let sum = graph.reduce_sum(partial, &[0], false)?;
                graph.reshape(sum, shape)?
            }
            _ => {
                let count = Dim::product(&index_shape);
                let indices = graph.reshape(indices, [count.clone()])?;
                let update_shape = std::iter::once(count).chain(shape[1..].iter().cloned());
                let dy = graph.reshape(dy, update_shape)?;
                let zero = graph.scalar(0.0)?;
                let zeros = graph.expand(zero, shape)?;
                graph.apply1(ScatterAdd, &[zeros, indices, dy])?
            }
        };
        Ok(vec![Some(grad), None])
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (table, indices) = (inputs[0], inputs[1]);
        let shape: Vec<usize> = [indices.shape(), &table.shape()[1..]].concat();
        let flat: Vec<usize> = indices.iter().map(|&i| i as usize).collect();
        if flat.iter().any(|&i| i >= table.shape()[0]) {
            return Err(format!("an index is not below {}", table.shape()[0]));
        }
        let rows = table.select(Axis(0), &flat).as_standard_layout().into_owned();
        let rows = rows.into_shape_with_order(IxDyn(&shape)).map_err(|e| e.to_string())?;
        Ok(vec![rows])
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        emitter.standard("Gather", inputs, outputs);
        Ok(())
    }
}
