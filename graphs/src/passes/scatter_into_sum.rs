//! `a + scatter(0, indices, rows)` becomes `scatter(a, indices, rows)`: the tied embedding's two
//! gradients are summed where they fall instead of over the whole table.

use crate::ir::{Graph, GraphError, NodeId, ValueId};
use crate::ops::{Op, scatter_add::ScatterAdd};

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let producers = graph.producers();
    let uses = graph.use_counts();
    for index in 0..graph.nodes.len() {
        if !matches!(graph.nodes[index].op, Op::Add(_)) {
            continue;
        }
        let [a, b] = graph.nodes[index].inputs[..] else {
            continue;
        };
        for (sum, scattered) in [(a, b), (b, a)] {
            let same_shape = graph.ty(sum) == graph.ty(scattered);
            if !same_shape || uses[scattered.0] != 1 {
                continue;
            }
            let Some(rest) = scatter_into_zeros(graph, &producers, scattered) else {
                continue;
            };
            let node = &mut graph.nodes[index];
            node.op = ScatterAdd.into();
            node.inputs = vec![sum, rest[0], rest[1]];
            break;
        }
    }
    Ok(())
}

/// Indices and rows, if `value` is their sum into zeros.
fn scatter_into_zeros(
    graph: &Graph,
    producers: &[Option<NodeId>],
    value: ValueId,
) -> Option<[ValueId; 2]> {
    let node = |v: ValueId| producers[v.0].map(|n| &graph.nodes[n.0]);
    let scatter = node(value).filter(|n| matches!(n.op, Op::ScatterAdd(_)))?;
    let [table, indices, rows] = scatter.inputs[..] else {
        return None;
    };
    let expand = node(table).filter(|n| matches!(n.op, Op::Expand(_)))?;
    match &node(expand.inputs[0])?.op {
        Op::Constant(zero) if zero.values.iter().all(|&v| v == 0.0) => Some([indices, rows]),
        _ => None,
    }
}
