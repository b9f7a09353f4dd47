//! Multiplications by a number become a factor of the matrix products next to them.

use crate::ir::{GraphError, NodeId, ValueId};
use crate::ops::Graph;
use crate::ops::Op;

/// Who reads a value, once for every reading.
struct Readers {
    nodes: Vec<Vec<usize>>,
    is_output: Vec<bool>,
}

impl Readers {
    fn new(graph: &Graph) -> Readers {
        let mut nodes = vec![Vec::new(); graph.values.len()];
        for (index, node) in graph.nodes.iter().enumerate() {
            for input in &node.inputs {
                nodes[input.0].push(index);
            }
        }
        let mut is_output = vec![false; graph.values.len()];
        for (_, value) in &graph.outputs {
            is_output[value.0] = true;
        }
        Readers { nodes, is_output }
    }

    fn only_one(&self, value: ValueId) -> bool {
        self.nodes[value.0].len() == 1 && !self.is_output[value.0]
    }
}

/// Absorbs every scaling that lies between products, or behind one of which it is the only reader.
///
/// # Errors
/// Never in practice.
pub fn absorb_scale(graph: &mut Graph) -> Result<(), GraphError> {
    let producers = graph.producers();
    let readers = Readers::new(graph);
    let mut map = graph.identity_map();
    for index in 0..graph.nodes.len() {
        let Some((value, factor)) = scaling(graph, &producers, index) else {
            continue;
        };
        let output = graph.nodes[index].outputs[0];
        let after = &readers.nodes[output.0];
        let products_only = !readers.is_output[output.0]
            && !after.is_empty()
            && after
                .iter()
                .all(|&n| matches!(graph.nodes[n].op, Op::MatMul(_)));
        let products = match product_before(graph, &producers, &readers, value) {
            Some(before) => vec![before],
            None if products_only => after.clone(),
            None => continue,
        };
        for product in products {
            if let Op::MatMul(op) = &mut graph.nodes[product].op {
                op.alpha = (f64::from(op.alpha) * factor) as f32;
            }
        }
        map[output.0] = value;
    }
    // A scaling of a scaling leads on to what that one scaled.
    for value in 0..map.len() {
        while map[map[value].0] != map[value] {
            map[value] = map[map[value].0];
        }
    }
    graph.replace_uses(&map);
    Ok(())
}

/// What node `index` scales and by how much, where that is all it does.
fn scaling(graph: &Graph, producers: &[Option<NodeId>], index: usize) -> Option<(ValueId, f64)> {
    let node = &graph.nodes[index];
    if !matches!(node.op, Op::Mul(_)) {
        return None;
    }
    let [a, b] = node.inputs[..] else { return None };
    let number = |v: ValueId| match &graph.nodes[producers[v.0]?.0].op {
        Op::Constant(constant) if constant.shape.is_empty() => constant.values.first().copied(),
        _ => None,
    };
    match (number(a), number(b)) {
        (None, Some(factor)) => Some((a, factor)),
        (Some(factor), None) => Some((b, factor)),
        (None, None) | (Some(_), Some(_)) => None,
    }
}

/// The product that alone makes `value`, directly or through a choice between it and 0.
fn product_before(
    graph: &Graph,
    producers: &[Option<NodeId>],
    readers: &Readers,
    value: ValueId,
) -> Option<usize> {
    if !readers.only_one(value) {
        return None;
    }
    let node = producers[value.0]?;
    match &graph.nodes[node.0].op {
        Op::MatMul(_) => Some(node.0),
        Op::Where(_) => {
            let [_, kept, other] = graph.nodes[node.0].inputs[..] else {
                return None;
            };
            let zero = match &graph.nodes[producers[other.0]?.0].op {
                Op::Constant(constant) => constant.values.iter().all(|&v| v == 0.0),
                _ => false,
            };
            let product = producers[kept.0]?;
            let is_product = matches!(graph.nodes[product.0].op, Op::MatMul(_));
            (zero && is_product && readers.only_one(kept)).then_some(product.0)
        }
        _ => None,
    }
}
