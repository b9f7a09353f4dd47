//! Rows of a table: `table[indices]`, as an embedding.

use super::operator::{Arithmetic, Emitted, Kernel, Operator, Vjp, exactly, row_index};
use super::scatter::ScatterAdd;
use crate::ir::{Array, Bindings, Cost, DType, Dim, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::Emitter;
use crate::ops::Graph;
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
        let [table, indices] = exactly(inputs)?;
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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Standard]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Low
    }

    fn cost(&self, node: &Operands) -> Cost {
        // Only the rows that are taken.
        Cost {
            flops: 0,
            bytes: node.input_bytes(1) + 2 * node.written(),
        }
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let (table, indices) = (inputs[0], inputs[1]);
        let shape: Vec<usize> = [indices.shape(), &table.shape()[1..]].concat();
        let flat = indices
            .iter()
            .map(|&i| row_index("index", i, table.shape()[0]))
            .collect::<Result<Vec<usize>, String>>()?;
        let rows = table
            .select(Axis(0), &flat)
            .as_standard_layout()
            .into_owned();
        let rows = rows
            .into_shape_with_order(IxDyn(&shape))
            .map_err(|e| e.to_string())?;
        Ok(vec![rows])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        emitter.gather(&inputs[0], &inputs[1], outputs);
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;

    pub fn gather() -> Spec {
        Spec::default()
            .example(
                Example::of(Gather)
                    .given(f32([3, 2]), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
                    .given(i64([2]), &[2.0, 0.0])
                    .gives(&[2, 2], &[5.0, 6.0, 1.0, 2.0])
                    .differentiable(),
            )
            // By one-hot rows, by a scatter of repeated indices, and by a scatter into a long table.
            .example(
                Example::of(Gather)
                    .floats([4, 3])
                    .indices([B, L], 4)
                    .differentiable(),
            )
            .example(
                Example::of(Gather)
                    .floats([4, 3])
                    .indices([6], 4)
                    .differentiable(),
            )
            .example(
                Example::of(Gather)
                    .floats([ONE_HOT_ROWS + 2, 1])
                    .indices([B, P], ONE_HOT_ROWS as i64 + 2)
                    .differentiable(),
            )
            .example(
                Example::of(Gather)
                    .given(i64([3]), &[7.0, 8.0, 9.0])
                    .given(i64([2, 2]), &[0.0, 2.0, 1.0, 1.0])
                    .gives(&[2, 2], &[7.0, 9.0, 8.0, 8.0])
                    .not_differentiable(),
            )
            .rejects(Gather, [f32(SCALAR), i64([2])], "takes a table")
            .rejects(Gather, [f32([3]), f32([2])], "i64 indices")
    }

    #[test]
    fn an_index_outside_the_table_is_an_error() {
        for index in [-1.0, 3.0] {
            let inputs = [array(&[3], &[0.0; 3]), array(&[1], &[index])];
            let outputs = Gather.evaluate(&SIZES, &[&inputs[0], &inputs[1]]);
            assert_eq!(outputs, Err(format!("index {index} is not below 3")));
        }
    }
}
