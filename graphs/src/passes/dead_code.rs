//! Removes nodes that no output needs.

use crate::ir::{Graph, GraphError};

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let mut needed = vec![false; graph.values.len()];
    for (_, value) in &graph.outputs {
        needed[value.0] = true;
    }
    let mut kept = vec![false; graph.nodes.len()];
    for (i, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|v| needed[v.0]) {
            kept[i] = true;
            for input in &node.inputs {
                needed[input.0] = true;
            }
        }
    }
    let mut kept = kept.into_iter();
    graph.nodes.retain(|_| kept.next().unwrap_or(false));
    Ok(())
}
