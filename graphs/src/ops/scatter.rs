//! Rows added to a table: `table[indices[i]] += rows[i]`.
//!
//! On the CPU no ScatterND adds: its threads lose additions to one row. The embedding's gradient
//! is a ScatterElements.

use super::matmul::MatMul;
use super::operator::{
    Arithmetic, Emitted, Expansion, Feature, Kernel, Operator, Vjp, exactly, row_index,
};
use crate::ir::{Array, Bindings, Cost, DType, GraphError, Operands, Type, ValueId};
use crate::onnx::emitter::{Attribute, Emitter};
use crate::ops::Graph;
use mpnet_plan::KernelId;
use ndarray::Axis;

/// Rows added to a table: `table[indices[i]] += rows[i]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ScatterAdd;

/// The table is copied, then rows of it are read and written once more.
fn scattered(node: &Operands) -> Cost {
    let [table, indices, rows] = [0, 1, 2].map(|i| node.input_bytes(i));
    Cost {
        flops: node.input(2),
        bytes: table + node.written() + indices + 3 * rows,
    }
}

impl Operator for ScatterAdd {
    fn name(&self) -> &'static str {
        "ScatterAdd"
    }

    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String> {
        let [table, indices, rows] = exactly(inputs)?;
        let floats = table.dtype == DType::F32 && rows.dtype == DType::F32;
        if !floats || indices.dtype != DType::I64 || indices.rank() != 1 || table.rank() == 0 {
            return Err("takes a float table, i64 indices [M] and float rows".to_owned());
        }
        if rows.shape.first() != Some(&indices.shape[0]) || rows.shape[1..] != table.shape[1..] {
            return Err("rows fit neither the indices nor the table".to_owned());
        }
        Ok(vec![(*table).clone()])
    }

    fn vjp(&self, graph: &mut Graph, at: &Vjp) -> Result<Vec<Option<ValueId>>, GraphError> {
        let dy = at.grad()?;
        let rows = graph.gather(dy, at.input(1))?;
        Ok(vec![Some(dy), None, Some(rows)])
    }

    fn kernels(&self) -> Vec<Kernel> {
        vec![
            Kernel::Own(KernelId::ScatterAdd),
            Kernel::Feature(Feature::ScatterNdAdds),
        ]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        scattered(node)
    }

    fn evaluate(&self, _: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        let mut table = inputs[0].clone();
        for (i, row) in inputs[1].iter().zip(inputs[2].axis_iter(Axis(0))) {
            let i = row_index("index", *i, inputs[0].shape()[0])?;
            let mut target = table.index_axis_mut(Axis(0), i);
            target += &row;
        }
        Ok(vec![table])
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        if emitter.has(KernelId::ScatterAdd) {
            emitter.own(KernelId::ScatterAdd, &inputs[0], inputs, outputs, []);
            return Ok(());
        }
        let indices = emitter.unsqueeze(&inputs[1], 1); // [M, 1]
        emitter.standard_with(
            "ScatterND",
            &[inputs[0].clone(), indices, inputs[2].clone()],
            outputs,
            [("reduction", Attribute::Text("add"))],
        );
        Ok(())
    }

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
        Ok(Some(graph.apply(ScatterElements, inputs)?))
    }
}

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

    fn kernels(&self) -> Vec<Kernel> {
        vec![Kernel::Feature(Feature::ScatterElementsAdds)]
    }

    fn arithmetic(&self) -> Arithmetic {
        Arithmetic::Full
    }

    fn cost(&self, node: &Operands) -> Cost {
        scattered(node)
    }

    fn evaluate(&self, bindings: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String> {
        ScatterAdd.evaluate(bindings, inputs)
    }

    fn emit(&self, emitter: &mut Emitter, inputs: &[String], outputs: &[String]) -> Emitted {
        let [table, indices, rows] = exactly(inputs)?;
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

    fn expand(&self, graph: &mut Graph, inputs: &[ValueId]) -> Expansion {
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
    use crate::ir::Dim;
    use crate::ops::testing::*;

    pub fn scatter_add() -> Spec {
        Spec::default()
            .example(
                Example::of(ScatterAdd)
                    .given(f32([3, 1]), &[10.0, 20.0, 30.0])
                    .given(i64([3]), &[2.0, 0.0, 2.0])
                    .given(f32([3, 1]), &[1.0, 2.0, 3.0])
                    .gives(&[3, 1], &[12.0, 20.0, 34.0])
                    .differentiable(),
            )
            .example(
                Example::of(ScatterAdd)
                    .floats([4, 2])
                    .indices([L], 4)
                    .floats([Dim::from(L), 2.into()])
                    .differentiable(),
            )
            .rejects(
                ScatterAdd,
                [f32([4, 2]), i64([3]), f32([2, 2])],
                "neither the indices nor",
            )
            .rejects(
                ScatterAdd,
                [f32([4, 2]), i64([3]), f32([3, 1])],
                "neither the indices nor",
            )
            .rejects(
                ScatterAdd,
                [f32([4]), i64([3]), f32(SCALAR)],
                "neither the indices nor",
            )
            .rejects(
                ScatterAdd,
                [f32([4]), i64([3, 1]), f32([3])],
                "i64 indices [M]",
            )
            .rejects(ScatterAdd, [i64([4]), i64([3]), i64([3])], "float table")
    }

    #[test]
    fn an_index_outside_the_table_is_an_error() {
        for index in [-1.0, 2.0] {
            let (table, row) = (array(&[2], &[0.0; 2]), array(&[1], &[1.0]));
            let outputs = ScatterAdd.evaluate(&SIZES, &[&table, &array(&[1], &[index]), &row]);
            assert_eq!(outputs, Err(format!("index {index} is not below 2")));
        }
    }

    pub fn scatter_elements() -> Spec {
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
