//! What a graph costs to run, op by op: floating point operations and bytes moved.

use super::graph::{Graph, Node, ValueId};
use super::operation::Operation;
use super::types::Type;
use mpnet_plan::{Bindings, Dim};
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Work of a node or of many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cost {
    /// Arithmetic operations on elements; a multiplication with its addition counts two, an
    /// exponential or a root one.
    pub flops: u64,
    /// Bytes read and written if every node reads its inputs from memory and writes its outputs
    /// there, nothing fused.
    pub bytes: u64,
}

impl AddAssign for Cost {
    fn add_assign(&mut self, other: Cost) {
        self.flops += other.flops;
        self.bytes += other.bytes;
    }
}

/// The cost of a graph.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Costs {
    /// Number of nodes and their cost by operator name.
    pub by_op: BTreeMap<&'static str, (usize, Cost)>,
    pub total: Cost,
}

/// The cost of every node of `graph` for a batch of the given sizes.
pub fn costs<O: Operation>(graph: &Graph<O>, sizes: &Bindings) -> Costs {
    let mut costs = Costs::default();
    for node in graph.nodes() {
        let cost = node.op.cost(&Operands::of(graph, node, sizes));
        let (count, sum) = costs.by_op.entry(node.op.name()).or_default();
        *count += 1;
        *sum += cost;
        costs.total += cost;
    }
    costs
}

/// Elements of all trainable parameters of `graph`.
pub fn parameter_count<O: Operation>(graph: &Graph<O>) -> u64 {
    // No parameter has a symbolic size, so any will do.
    let sizes = Bindings::new([]);
    let elements = graph
        .parameters()
        .iter()
        .map(|v| elements(graph.ty(*v), &sizes));
    elements.sum()
}

/// The types of a node's inputs and outputs and the sizes of a batch: what an operator's cost depends on.
pub struct Operands<'a> {
    inputs: Vec<&'a Type>,
    outputs: Vec<&'a Type>,
    sizes: &'a Bindings,
}

impl<'a> Operands<'a> {
    /// Of these types, for a batch of these sizes.
    pub fn new(inputs: &'a [Type], outputs: &'a [Type], sizes: &'a Bindings) -> Operands<'a> {
        Operands {
            inputs: inputs.iter().collect(),
            outputs: outputs.iter().collect(),
            sizes,
        }
    }

    fn of<O: Operation>(graph: &'a Graph<O>, node: &Node<O>, sizes: &'a Bindings) -> Operands<'a> {
        let types = |values: &[ValueId]| values.iter().map(|v| graph.ty(*v)).collect();
        Operands {
            inputs: types(&node.inputs),
            outputs: types(&node.outputs),
            sizes,
        }
    }

    /// The type of input `i`.
    pub fn input_type(&self, i: usize) -> &Type {
        self.inputs[i]
    }

    /// Elements of input `i`.
    pub fn input(&self, i: usize) -> u64 {
        elements(self.inputs[i], self.sizes)
    }

    /// Elements of output `i`.
    pub fn output(&self, i: usize) -> u64 {
        elements(self.outputs[i], self.sizes)
    }

    /// The size of a dimension.
    pub fn size(&self, dim: &Dim) -> u64 {
        size(dim, self.sizes)
    }

    /// The size of dimension `axis` of input `i`.
    pub fn dim(&self, i: usize, axis: usize) -> u64 {
        self.size(&self.inputs[i].shape[axis])
    }

    /// Bytes of input `i`.
    pub fn input_bytes(&self, i: usize) -> u64 {
        bytes_of(self.inputs[i], self.sizes)
    }

    /// Bytes of all outputs.
    pub fn written(&self) -> u64 {
        self.outputs.iter().map(|ty| bytes_of(ty, self.sizes)).sum()
    }

    /// So many operations, with every input read and every output written.
    pub fn flops(&self, flops: u64) -> Cost {
        let read: u64 = self.inputs.iter().map(|ty| bytes_of(ty, self.sizes)).sum();
        let bytes = read + self.written();
        Cost { flops, bytes }
    }

    /// Every input read and every output written, unchanged.
    pub fn moves(&self) -> Cost {
        self.flops(0)
    }
}

/// Bytes of a value.
pub(super) fn bytes<O: Operation>(graph: &Graph<O>, value: ValueId, sizes: &Bindings) -> u64 {
    bytes_of(graph.ty(value), sizes)
}

fn bytes_of(ty: &Type, sizes: &Bindings) -> u64 {
    elements(ty, sizes) * ty.dtype.size() as u64
}

fn elements(ty: &Type, sizes: &Bindings) -> u64 {
    ty.shape.iter().map(|dim| size(dim, sizes)).product()
}

/// A size; one below 0, which no valid batch gives, is 0, as is one that `sizes` lack: figures are asked for with
/// those of a batch.
fn size(dim: &Dim, sizes: &Bindings) -> u64 {
    let size = dim.eval(sizes).ok();
    size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, Dim, GraphError, Symbol, Type};
    use crate::lower::evaluation::eval_graph;
    use crate::lower::ort_training::training_graph;
    use crate::model::parameters::{Parameter, parameters};
    use crate::model::testing::tiny;
    use crate::ops::Graph;
    use crate::ops::matmul::MatMul;
    use mpnet_plan::Provider;

    const SIZES: Bindings = Bindings::new([
        (Symbol::BATCH, 3),
        (Symbol::LENGTH, 5),
        (Symbol::PREDICTED, 2),
    ]);

    #[test]
    fn a_product_counts_two_for_every_pair_of_elements() -> Result<(), GraphError> {
        let (b, l) = (Dim::from(Symbol::BATCH), Dim::from(Symbol::LENGTH));
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([b.clone(), l, 7.into()])); // [3, 5, 7]
        let w = graph.parameter("w", Type::f32([Dim::from(11), 7.into()]));
        let y = graph.linear(x, w)?; // [3, 5, 11]
        let flops = 2 * (3 * 5) * 7 * 11;
        let bytes = 4 * (3 * 5 * 7 + 11 * 7 + 3 * 5 * 11);
        let expected = Cost { flops, bytes };
        assert_eq!(costs(&graph, &SIZES).total, expected);
        // The product xᵀ·y of every batch contracts the rows.
        let transposed = MatMul {
            trans_a: true,
            ..MatMul::default()
        };
        graph.matmul(x, y, transposed)?; // [3, 7, 11]
        let both = costs(&graph, &SIZES);
        assert_eq!(both.by_op["MatMul"].0, 2);
        assert_eq!(both.total.flops, flops + 2 * (3 * 7 * 11) * 5);
        assert_eq!(parameter_count(&graph), 77);
        Ok(())
    }

    #[test]
    fn views_cost_nothing_and_a_gather_reads_only_its_rows() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let table = graph.parameter("table", Type::f32([Dim::from(1000), 4.into()]));
        let indices = graph.input("i", Type::new(DType::I64, [Dim::from(Symbol::LENGTH)]));
        let rows = graph.gather(table, indices)?; // [5, 4]
        let total = costs(&graph, &SIZES).total;
        let bytes = 5 * 8 + 2 * (5 * 4 * 4);
        assert_eq!(total, Cost { flops: 0, bytes });
        graph.flatten_rows(rows)?;
        graph.reshape(rows, [Dim::from(4), Symbol::LENGTH.into()])?;
        assert_eq!(costs(&graph, &SIZES).total, total);
        Ok(())
    }

    #[test]
    fn totals_are_the_sum_of_the_ops_and_training_is_about_three_evaluations()
    -> Result<(), GraphError> {
        let config = tiny();
        let training = training_graph(&config, false, Provider::Cpu)?.0;
        let trained = costs(&training, &SIZES);
        let mut sum = Cost::default();
        for (_, cost) in trained.by_op.values() {
            sum += *cost;
        }
        assert_eq!(sum, trained.total);
        let nodes: usize = trained.by_op.values().map(|(count, _)| count).sum();
        assert_eq!(nodes, training.nodes().len());

        let evaluation = eval_graph(&config, false)?;
        let evaluated = costs(&evaluation, &SIZES);
        let products = |c: &Costs| c.by_op["MatMul"].1.flops as f64;
        let ratio = products(&trained) / products(&evaluated);
        assert!((2.5..4.5).contains(&ratio), "{ratio}");

        let listed: usize = parameters(&config).iter().map(Parameter::len).sum();
        assert_eq!(parameter_count(&evaluation), listed as u64);
        Ok(())
    }
}
