//! Replaces operators that a target has no kernel for by their expansion in operators it has.

use crate::ir::{GraphError, verify};
use crate::ops::Graph;
use crate::ops::Op;

/// How often an expansion may need to be expanded itself.
const MAX_DEPTH: usize = 4;

/// Expands every operator of `graph` that `has` refuses, until there is none.
///
/// # Errors
/// Where such an operator has no expansion, or an expansion breaks the graph.
pub fn expand(graph: &mut Graph, has: &dyn Fn(&Op) -> bool) -> Result<(), GraphError> {
    for _ in 0..MAX_DEPTH {
        if graph.nodes.iter().all(|node| has(&node.op)) {
            return Ok(());
        }
        round(graph, has)?;
        verify(graph, "expand")?;
    }
    match graph.nodes.iter().find(|node| !has(&node.op)) {
        None => Ok(()),
        Some(node) => Err(missing(&node.op, "its expansion does not end")),
    }
}

fn round(graph: &mut Graph, has: &dyn Fn(&Op) -> bool) -> Result<(), GraphError> {
    let mut map = graph.identity_map();
    for mut node in std::mem::take(&mut graph.nodes) {
        for input in &mut node.inputs {
            *input = map[input.0];
        }
        if has(&node.op) {
            graph.nodes.push(node);
            continue;
        }
        let values = node
            .op
            .operator()
            .expand(graph, &node.inputs)?
            .ok_or_else(|| missing(&node.op, "the target has no kernel for it"))?;
        for (output, value) in node.outputs.iter().zip(values) {
            map[output.0] = value;
        }
    }
    map.extend((map.len()..graph.values.len()).map(crate::ir::ValueId));
    graph.replace_uses(&map);
    Ok(())
}

fn missing(op: &Op, reason: &str) -> GraphError {
    GraphError::Emit {
        op: op.operator().name(),
        reason: reason.to_owned(),
    }
}
