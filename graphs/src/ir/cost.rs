//! What a graph costs to run, op by op: floating point operations and bytes moved.

use super::graph::{Graph, Node, ValueId};
use crate::ops::Op;
use mpnet_plan::Bindings;
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
pub fn costs(graph: &Graph, sizes: &Bindings) -> Costs {
    let mut costs = Costs::default();
    for node in graph.nodes() {
        let cost = node_cost(graph, node, sizes);
        let (count, sum) = costs.by_op.entry(node.op.operator().name()).or_default();
        *count += 1;
        *sum += cost;
        costs.total += cost;
    }
    costs
}

/// Elements of all trainable parameters of `graph`.
pub fn parameter_count(graph: &Graph) -> u64 {
    // No parameter has a symbolic size, so any will do.
    let sizes = Bindings::new([]);
    let elements = graph
        .parameters()
        .iter()
        .map(|v| elements(graph, *v, &sizes));
    elements.sum()
}

/// The cost of one node.
fn node_cost(graph: &Graph, node: &Node, sizes: &Bindings) -> Cost {
    let count =
        |values: &[ValueId], i: usize| values.get(i).map_or(0, |v| elements(graph, *v, sizes));
    let input = |i| count(&node.inputs, i);
    let output = |i| count(&node.outputs, i);
    let flops = match &node.op {
        Op::MatMul(op) => {
            let shared = node.inputs.first().map(|a| op.contracted(graph.ty(*a)));
            2 * output(0) * shared.map_or(0, |k| size(k.eval(sizes)))
        }
        // Scores and context; of the derivative five products, the scores once more among them.
        Op::TwoStreamAttention(_) => 2 * 2 * output(0) * dim(graph, node, 1, 0, sizes),
        Op::TwoStreamAttentionGrad(_) => 2 * 5 * output(0) * dim(graph, node, 4, 0, sizes),
        Op::PackedAttention(_) => 2 * 2 * output(0) * dim(graph, node, 2, 1, sizes),
        Op::PackedAttentionGrad(_) => 2 * 5 * input(0) * dim(graph, node, 5, 1, sizes),
        // Data only moves.
        Op::Cast(_)
        | Op::Concat(_)
        | Op::Constant(_)
        | Op::Expand(_)
        | Op::Gather(_)
        | Op::Iota(_)
        | Op::Pad(_)
        | Op::Reshape(_)
        | Op::Slice(_)
        | Op::Split(_)
        | Op::Transpose(_) => 0,
        Op::Add(_)
        | Op::And(_)
        | Op::Div(_)
        | Op::Equal(_)
        | Op::Erf(_)
        | Op::Exp(_)
        | Op::Less(_)
        | Op::Mul(_)
        | Op::Relu(_)
        | Op::ReluGrad(_)
        | Op::Sqrt(_)
        | Op::Sub(_)
        | Op::Tanh(_)
        | Op::Where(_)
        | Op::WrappingMul(_) => output(0),
        Op::Accumulate(_) => input(0),
        // Scale, two means of two products and a sum each, root, correct, shift, divide, step, decay, subtract.
        Op::AdamWUpdate(_) => 15 * input(0),
        Op::ArgMax(_) | Op::CumSum(_) | Op::ReduceSum(_) => input(0),
        Op::SumSquares(_) => 2 * input(0),
        Op::ScatterAdd(_) | Op::ScatterElements(_) => input(2),
        // Mask and scale.
        Op::Dropout(_) | Op::FactorDropout(_) => 2 * output(0),
        // Negate, exp, add, divide.
        Op::Sigmoid(_) => 4 * output(0),
        // x/√2, erf, + 1, · x, / 2; the cubic's three more and tanh for erf.
        Op::Gelu(op) => (if op.approximate { 8 } else { 5 }) * output(0),
        // The distribution (4), the density (4), their sum, times dy; the cubic's more.
        Op::GeluGrad(op) => (if op.approximate { 17 } else { 11 }) * output(0),
        // Maximum, subtract, exp, sum, divide.
        Op::Softmax(_) | Op::CrossEntropy(_) => 5 * input(0),
        // Multiply, sum, subtract, multiply.
        Op::SoftmaxGrad(_) => 4 * output(0),
        // Exp and scale.
        Op::CrossEntropyGrad(_) => 2 * output(0),
        // Mean, subtract, variance (2), normalize, scale, shift.
        Op::LayerNorm(_) | Op::LayerNormOutput(_) => 7 * input(0),
        // Bias, dropout (2), residual, then layer normalization.
        Op::ResidualNorm(_) => 11 * output(0),
        // Subtract, normalize, scale, shift.
        Op::NormalizedAgain(_) => 4 * output(0),
        // Layer normalization's, dropout (2), the bias' gradient.
        Op::ResidualNormGrad(_) => 16 * output(0),
        // Bias, GELU, dropout (2).
        Op::BiasGelu(op) => (if op.approximate { 11 } else { 8 }) * output(0),
        // GELU's derivative and GELU itself, dropout twice, the bias' gradient.
        Op::BiasGeluGrad(op) => (if op.forward.approximate { 30 } else { 21 }) * output(0),
        // Bias, maximum, subtract, exp, sum.
        Op::BiasCrossEntropy(_) => 5 * input(0),
        // Bias, subtract, exp, scale, the bias' gradient.
        Op::BiasCrossEntropyGrad(_) => 5 * output(0),
        // Normalize (2), scale's gradient (2), bias's, scaled gradient, two means (3), result (4).
        Op::LayerNormGrad(_) => 13 * input(0),
    };
    let bytes = |v: &ValueId| bytes(graph, *v, sizes);
    let written: u64 = node.outputs.iter().map(bytes).sum();
    let read: u64 = node.inputs.iter().map(bytes).sum();
    let at = |i: usize| node.inputs.get(i).map_or(0, bytes);
    let bytes = match &node.op {
        // A constant lies in the file, a reshape is another view of what is there.
        Op::Constant(_) | Op::Reshape(_) => 0,
        // Only the rows that are taken.
        Op::Gather(_) => at(1) + 2 * written,
        Op::Slice(_) => 2 * written,
        // All but what it waits for.
        Op::NormalizedAgain(_) => read - at(5) + written,
        // The table is copied, then rows of it are read and written once more.
        Op::ScatterAdd(_) | Op::ScatterElements(_) => at(0) + written + at(1) + 3 * at(2),
        Op::Accumulate(_)
        | Op::AdamWUpdate(_)
        | Op::Add(_)
        | Op::And(_)
        | Op::ArgMax(_)
        | Op::BiasCrossEntropy(_)
        | Op::BiasCrossEntropyGrad(_)
        | Op::BiasGelu(_)
        | Op::BiasGeluGrad(_)
        | Op::Cast(_)
        | Op::Concat(_)
        | Op::CrossEntropy(_)
        | Op::CrossEntropyGrad(_)
        | Op::CumSum(_)
        | Op::Div(_)
        | Op::Dropout(_)
        | Op::Equal(_)
        | Op::Erf(_)
        | Op::Exp(_)
        | Op::Expand(_)
        | Op::FactorDropout(_)
        | Op::Gelu(_)
        | Op::GeluGrad(_)
        | Op::Iota(_)
        | Op::LayerNorm(_)
        | Op::LayerNormGrad(_)
        | Op::LayerNormOutput(_)
        | Op::Less(_)
        | Op::MatMul(_)
        | Op::Mul(_)
        | Op::PackedAttention(_)
        | Op::PackedAttentionGrad(_)
        | Op::Pad(_)
        | Op::ReduceSum(_)
        | Op::Relu(_)
        | Op::ReluGrad(_)
        | Op::ResidualNorm(_)
        | Op::ResidualNormGrad(_)
        | Op::Sigmoid(_)
        | Op::Softmax(_)
        | Op::SoftmaxGrad(_)
        | Op::Split(_)
        | Op::Sqrt(_)
        | Op::Sub(_)
        | Op::SumSquares(_)
        | Op::Tanh(_)
        | Op::Transpose(_)
        | Op::TwoStreamAttention(_)
        | Op::TwoStreamAttentionGrad(_)
        | Op::Where(_)
        | Op::WrappingMul(_) => read + written,
    };
    Cost { flops, bytes }
}

/// Size of dimension `axis` of a node's input `index`.
fn dim(graph: &Graph, node: &Node, index: usize, axis: usize, sizes: &Bindings) -> u64 {
    let input = node.inputs.get(index);
    let dim = input.and_then(|v| graph.ty(*v).shape.get(axis));
    dim.map_or(0, |d| size(d.eval(sizes)))
}

/// Bytes of a value.
pub(super) fn bytes(graph: &Graph, value: ValueId, sizes: &Bindings) -> u64 {
    elements(graph, value, sizes) * graph.ty(value).dtype.size() as u64
}

/// Elements of a value.
fn elements(graph: &Graph, value: ValueId, sizes: &Bindings) -> u64 {
    let shape = &graph.ty(value).shape;
    shape.iter().map(|d| size(d.eval(sizes))).product()
}

/// A size; one below 0, which no valid batch gives, is 0.
fn size(dim: i64) -> u64 {
    u64::try_from(dim).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, Dim, GraphError, Symbol, Type};
    use crate::lower::ort_training::{eval_graph, training_graph};
    use crate::model::parameters::{Parameter, parameters};
    use crate::model::testing::tiny;
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
