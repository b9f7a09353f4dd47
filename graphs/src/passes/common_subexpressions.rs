//! Computes equal nodes once: same operator, same inputs.

use crate::ir::{Graph, GraphError, ValueId};
use std::collections::HashMap;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let mut map = graph.identity_map();
    // Candidates by inputs; operators are compared for equality, attributes included.
    let mut seen: HashMap<Vec<ValueId>, Vec<usize>> = HashMap::new();
    let mut kept = Vec::with_capacity(graph.nodes.len());
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.inputs {
            *input = map[input.0];
        }
        let candidates = seen.entry(node.inputs.clone()).or_default();
        let twin = candidates
            .iter()
            .map(|&i: &usize| &kept[i])
            .find(|other: &&crate::ir::Node| other.op == node.op);
        if let Some(twin) = twin {
            for (output, other) in node.outputs.iter().zip(&twin.outputs) {
                map[output.0] = *other;
            }
        } else {
            candidates.push(kept.len());
            kept.push(node);
        }
    }
    graph.nodes = kept;
    graph.replace_uses(&map);
    Ok(())
}
