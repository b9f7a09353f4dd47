//! A matrix product's bias, dropout, the residual and layer normalization become one operator, which
//! gives its result twice: for the residual stream, and for matrix products.

use super::matching::{Matching, replace};
use crate::ir::{GraphError, ValueId};
use crate::ops::Graph;
use crate::ops::Op;
use crate::ops::residual_norm::ResidualNorm;
use std::collections::HashSet;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let matching = Matching::new(graph);
    let found: Vec<Option<(Op, Vec<ValueId>)>> = graph
        .nodes
        .iter()
        .map(|node| {
            let Op::LayerNorm(op) = &node.op else {
                return None;
            };
            let [x, scale, shift] = node.inputs[..] else {
                return None;
            };
            let statistics_unread = node.outputs[1..].iter().all(|v| matching.unread(*v));
            if graph.ty(x).rank() != 3 || !matching.read_once(x) || !statistics_unread {
                return None;
            }
            let sum = matching.made_by(x)?;
            let (Op::Add(_), &[a, b]) = (&sum.op, &sum.inputs[..]) else {
                return None;
            };
            [(a, b), (b, a)].into_iter().find_map(|(residual, branch)| {
                let dropped = matching.dropped(branch);
                if !matching.read_once(branch) || !matching.read_once(dropped.input) {
                    return None;
                }
                let linear = matching.linear(dropped.input)?;
                let fused = ResidualNorm {
                    epsilon: op.epsilon,
                    dropout: dropped.dropout,
                };
                let mut inputs = vec![residual, linear.product, linear.bias, scale, shift];
                inputs.extend(dropped.mask);
                Some((fused.into(), inputs))
            })
        })
        .collect();
    // Until here the first output alone was read, and it stays the first.
    replace(graph, found)?;
    let products = read_by_products(graph);
    let mut copies: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    for index in 0..graph.nodes.len() {
        let takes_copies = match &graph.nodes[index].op {
            Op::MatMul(_) => true,
            op => moves(op) && products.contains(&graph.nodes[index].outputs[0]),
        };
        let node = &mut graph.nodes[index];
        if let Op::ResidualNorm(_) = node.op {
            copies[node.outputs[0].0] = Some(node.outputs[1]);
        }
        if takes_copies {
            for input in &mut node.inputs {
                *input = copies[input.0].unwrap_or(*input);
            }
        }
    }
    Ok(())
}

/// Whether an operator moves numbers without changing them.
fn moves(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Slice(_) | Op::Transpose(_))
}

/// Values that only matrix products read, at most after being moved.
fn read_by_products(graph: &Graph) -> HashSet<ValueId> {
    let mut others: HashSet<ValueId> = graph.outputs.iter().map(|(_, v)| *v).collect();
    let mut products = HashSet::new();
    for node in graph.nodes.iter().rev() {
        let by_products = match &node.op {
            Op::MatMul(_) => true,
            op => moves(op) && products.contains(&node.outputs[0]),
        };
        for input in &node.inputs {
            match by_products && !others.contains(input) {
                true => products.insert(*input),
                false => {
                    products.remove(input);
                    others.insert(*input)
                }
            };
        }
    }
    products
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{DType, Dim, GraphError, Symbol, Type};
    use crate::ops::Graph;
    use crate::ops::Op;
    use crate::passes::dead_code;
    use crate::passes::testing::rewritten;

    fn fuse_then_clean(graph: &mut Graph) -> Result<(), GraphError> {
        run(graph)?;
        dead_code::run(graph)
    }

    #[test]
    fn a_branch_joins_the_stream_in_one_operator() -> Result<(), GraphError> {
        for (with_dropout, swap) in [(true, false), (false, true)] {
            let mut graph = Graph::new();
            let rows = || [Symbol::LENGTH.into(), Symbol::BATCH.into(), Dim::from(4)];
            let residual = graph.input("residual", Type::f32(rows()));
            let x = graph.input("x", Type::f32(rows()));
            let weight = graph.parameter("weight", Type::f32([Dim::from(4), 4.into()]));
            let vector = |graph: &mut Graph, name| graph.parameter(name, Type::f32([Dim::from(4)]));
            let [bias, scale, shift] = ["a", "b", "c"].map(|name| vector(&mut graph, name));
            let y = graph.linear(x, weight)?;
            let mut y = graph.add(y, bias)?;
            if with_dropout {
                let mask = graph.input("mask", Type::new(DType::U8, rows()));
                y = graph.dropout(y, mask, 0.5)?;
            }
            let sum = match swap {
                false => graph.add(residual, y)?,
                true => graph.add(y, residual)?,
            };
            let normal = graph.layer_norm(sum, scale, shift, 1e-5)?;
            // Moved rows for a product are taken from the copy, the stream's are not.
            let some = graph.slice(normal, 0, Dim::from(0), Dim::from(1))?;
            let product = graph.linear(some, weight)?;
            let stream = graph.slice(normal, 0, Dim::from(0), Dim::from(1))?;
            let next = graph.add(stream, product)?;
            graph.output("next", next);
            let left = rewritten(&mut graph, fuse_then_clean);
            let expected = ["MatMul", "ResidualNorm", "Slice", "MatMul", "Slice", "Add"];
            assert_eq!(left, expected);
            let norm = &graph.nodes()[1];
            assert!(matches!(norm.op, Op::ResidualNorm(_)));
            assert_eq!(graph.nodes()[2].inputs[0], norm.outputs[1]);
            assert_eq!(graph.nodes()[4].inputs[0], norm.outputs[0]);
        }
        Ok(())
    }

    #[test]
    fn a_sum_that_another_node_reads_stays() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let residual = graph.input("residual", Type::f32([2, 2, 4].map(Dim::from)));
        let weight = graph.parameter("weight", Type::f32([Dim::from(4), 4.into()]));
        let bias = graph.parameter("bias", Type::f32([Dim::from(4)]));
        let y = graph.linear(residual, weight)?;
        let y = graph.add(y, bias)?;
        let sum = graph.add(residual, y)?;
        let normal = graph.layer_norm(sum, bias, bias, 1e-5)?;
        graph.output("sum", sum);
        graph.output("normal", normal);
        let left = rewritten(&mut graph, fuse_then_clean);
        assert_eq!(left, ["MatMul", "Add", "Add", "LayerNorm"]);
        Ok(())
    }
}
