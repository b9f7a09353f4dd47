//! The derivative of an attention's softmax from its context: `Σ_j dP_j·P_j` over all keys is
//! `Σ_d dC_d·C_d` over the head's width, as C = P·V and dP = dC·Vᵀ, dropout or not. It is ten times
//! shorter and spares two passes over the probabilities (Dao et al., FlashAttention, section B.4).

use crate::ir::{GraphError, NodeId, ValueId};
use crate::ops::Op;
use crate::ops::matmul::MatMul;
use crate::ops::{Graph, Node};

/// Replaces every SoftmaxGrad whose probabilities and gradient are those of an attention.
///
/// # Errors
/// Never in practice.
pub fn softmax_row_sum(graph: &mut Graph) -> Result<(), GraphError> {
    let producers = graph.producers();
    let found: Vec<Option<[ValueId; 2]>> = graph
        .nodes
        .iter()
        .map(|node| attention_of(graph, &producers, node))
        .collect();
    let mut map = graph.identity_map();
    for (mut node, found) in std::mem::take(&mut graph.nodes).into_iter().zip(found) {
        for input in &mut node.inputs {
            *input = map[input.0];
        }
        let Some([context, dcontext]) = found else {
            graph.nodes.push(node);
            continue;
        };
        let (dy, y) = (node.inputs[0], node.inputs[1]);
        let product = graph.mul(map[context.0], map[dcontext.0])?; // [B, H, R, d]
        let last = graph.ty(product).rank() - 1;
        let sum = graph.reduce_sum(product, &[last], true)?; // [B, H, R, 1]
        let shifted = graph.sub(dy, sum)?;
        map[node.outputs[0].0] = graph.mul(y, shifted)?;
    }
    map.extend((map.len()..graph.values.len()).map(ValueId));
    graph.replace_uses(&map);
    Ok(())
}

/// The context and its gradient, where `node` is the SoftmaxGrad of an attention.
fn attention_of(graph: &Graph, producers: &[Option<NodeId>], node: &Node) -> Option<[ValueId; 2]> {
    if !matches!(node.op, Op::SoftmaxGrad(_)) {
        return None;
    }
    let made_by = |v: ValueId| producers[v.0].map(|n| &graph.nodes[n.0]);
    let (dy, y) = (node.inputs[0], node.inputs[1]);
    // dP is the product itself or its dropout; then the same mask was applied to P.
    let dropped = made_by(dy).filter(|n| matches!(n.op, Op::Dropout(_)));
    let product = made_by(dropped.map_or(dy, |n| n.inputs[0]))?;
    let Op::MatMul(op) = &product.op else {
        return None;
    };
    let transposed = MatMul {
        trans_b: true,
        ..MatMul::default()
    };
    if *op != transposed {
        return None;
    }
    let (dcontext, value) = (product.inputs[0], product.inputs[1]);
    let is_weights = |v: ValueId| match dropped {
        None => v == y,
        Some(dropped) => made_by(v).is_some_and(|n| {
            n.op == dropped.op && n.inputs[0] == y && n.inputs[1] == dropped.inputs[1]
        }),
    };
    let forward = graph.nodes.iter().find(|n| {
        n.op == MatMul::default().into() && n.inputs[1] == value && is_weights(n.inputs[0])
    })?;
    Some([forward.outputs[0], dcontext])
}
