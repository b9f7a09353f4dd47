//! The verifier: what must hold of every graph at every stage, checked after every pass.

use super::graph::{Graph, GraphError, ValueKind, infer};
use super::types::Type;
use std::collections::HashSet;

/// Checks that every value is defined once and before its use, that every node's outputs have the
/// types its operator infers, and that outside names are unique.
///
/// # Errors
/// Naming `stage` and the first violation.
pub fn verify(graph: &Graph, stage: &str) -> Result<(), GraphError> {
    let invalid = |reason: String| GraphError::Invalid {
        stage: stage.to_owned(),
        reason,
    };
    let mut defined = vec![false; graph.values.len()];
    let mut names = HashSet::new();
    for (list, kind) in [
        (&graph.inputs, ValueKind::Input),
        (&graph.parameters, ValueKind::Parameter),
    ] {
        for id in list {
            let value = graph
                .values
                .get(id.0)
                .ok_or_else(|| invalid(format!("value %{} does not exist", id.0)))?;
            let Some(name) = &value.name else {
                return Err(invalid(format!("%{} has no name", id.0)));
            };
            if value.kind != kind {
                return Err(invalid(format!("'{name}' is listed as {kind:?}")));
            }
            if !names.insert(name.as_str()) {
                return Err(invalid(format!("the name '{name}' is used twice")));
            }
            defined[id.0] = true;
        }
    }
    for (i, node) in graph.nodes.iter().enumerate() {
        let name = node.op.operator().name();
        for input in &node.inputs {
            if !defined.get(input.0).copied().unwrap_or(false) {
                return Err(invalid(format!(
                    "node {i} ({name}) reads %{} before it is defined",
                    input.0
                )));
            }
        }
        let types: Vec<&Type> = node.inputs.iter().map(|v| graph.ty(*v)).collect();
        let inferred = infer(&node.op, &types)?;
        if inferred.len() != node.outputs.len() {
            return Err(invalid(format!(
                "node {i} ({name}) has {} outputs, its operator {}",
                node.outputs.len(),
                inferred.len()
            )));
        }
        for (output, ty) in node.outputs.iter().zip(&inferred) {
            if graph.ty(*output) != ty {
                return Err(invalid(format!(
                    "node {i} ({name}): %{} is {}, its operator gives {ty}",
                    output.0,
                    graph.ty(*output)
                )));
            }
            if std::mem::replace(&mut defined[output.0], true) {
                return Err(invalid(format!(
                    "node {i} ({name}) defines %{} a second time",
                    output.0
                )));
            }
        }
    }
    let mut outputs = HashSet::new();
    for (name, value) in &graph.outputs {
        if !defined.get(value.0).copied().unwrap_or(false) {
            return Err(invalid(format!("output '{name}' is never computed")));
        }
        if !outputs.insert(name) {
            return Err(invalid(format!("two outputs are named '{name}'")));
        }
    }
    Ok(())
}
