//! Rows added to a table element by element: [`ScatterAdd`] for providers whose ScatterND may lose
//! one of two additions to the same row.

use super::matmul::MatMul;
use super::operator::{Operator, Vjp};
use super::scatter_add::ScatterAdd;
use crate::ir::{Array, Bindings, Graph, GraphError, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};

/// `table[indices[i]] += rows[i]` for matrices, in the order of the indices.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterElements;

impl Operator for ScatterElements {
    fn name(&self) -> &'static str {
        "ScatterElements"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        match inputs {
            [table, _, _] if table.rank() == 2 => ScatterAdd.infer(inputs),
            _ => Err("takes a table of rows".to_owned()),
        }
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        ScatterAdd.vjp(graph, at)
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        ScatterAdd.evaluate(bindings, inputs)
    }

    fn emit(
        &self,
        emitter: &mut Emitter,
        inputs: &[String],
        outputs: &[String],
    ) -> Result<(), String> {
        let [table, indices, rows] = inputs else {
            return Err("takes 3 inputs".to_owned());
        };
        let column = emitter.unsqueeze(indices, 1); // [M, 1]
        let shape = emitter.shape(rows)?;
        let shape = emitter.dims(&shape)?;
        let full = emitter.apply("Expand", &[column, shape]); // [M, D]
        emitter.standard_with(
            "ScatterElements",
            &[table.clone(), full, rows.clone()],
            outputs,
            [
                ("axis", Attribute::Int(0)),
                ("reduction", Attribute::Text("add")),
            ],
        );
        Ok(())
    }

    fn expand(
        &self,
        graph: &mut Graph,
        inputs: &[ValueId],
    ) -> Result<Option<Vec<ValueId>>, GraphError> {
        let (table, indices, rows) = (inputs[0], inputs[1], inputs[2]);
        let height = graph.ty(table).shape[0].clone();
        let count = graph.ty(indices).shape[0].clone();
        let places = graph.iota(height.clone())?;
        let places = graph.reshape(places, [height, 1.into()])?; // [N, 1]
        let indices = graph.reshape(indices, [1.into(), count])?; // [1, M]
        let hit = graph.equal(places, indices)?; // [N, M]
        let one_hot = graph.cast_like(hit, rows)?;
        let sum = graph.matmul(one_hot, rows, MatMul::default())?; // [N, D]
        Ok(Some(vec![graph.add(table, sum)?]))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::ops::testing::*;
    pub fn spec() -> Spec {
        Spec::default()
            .example(
                Example::of(ScatterElements)
                    .given(f32([3, 1]), &[10.0, 20.0, 30.0])
                    .given(i64([3]), &[2.0, 0.0, 2.0])
                    .given(f32([3, 1]), &[1.0, 2.0, 3.0])
                    .gives(&[3, 1], &[12.0, 20.0, 34.0])
                    .differentiable(),
            )
            .rejects(
                ScatterElements,
                [f32([4]), i64([3]), f32([3])],
                "table of rows",
            )
            .rejects(
                ScatterElements,
                [f32([4, 2]), i64([3]), f32([2, 2])],
                "neither the indices nor",
            )
    }
}
