//! The verifier: what must hold of every graph at every stage, checked after every pass.

use super::graph::{Graph, GraphError, ValueKind, infer};
use super::operation::Operation;
use super::types::Type;
use std::collections::HashSet;

/// Checks that every value is defined once and before its use, that every node's outputs have the
/// types its operator infers, and that outside names are unique.
///
/// # Errors
/// Naming `stage` and the first violation.
pub fn verify<O: Operation>(graph: &Graph<O>, stage: &str) -> Result<(), GraphError> {
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
        let name = node.op.name();
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
            let Some(value) = graph.values.get(output.0) else {
                return Err(invalid(format!("value %{} does not exist", output.0)));
            };
            if value.ty != *ty {
                return Err(invalid(format!(
                    "node {i} ({name}): %{} is {}, its operator gives {ty}",
                    output.0, value.ty
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
        let own = graph.value(*value).name.as_ref();
        if names.contains(name.as_str()) && own != Some(name) {
            return Err(invalid(format!(
                "output '{name}' has the name of another value"
            )));
        }
        if !outputs.insert(name) {
            return Err(invalid(format!("two outputs are named '{name}'")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{DType, Dim, ValueId};
    use crate::ops::Graph;
    use crate::ops::unary::Relu;

    fn vector() -> Type {
        Type::f32([Dim::from(2)])
    }

    /// x and w, x + w, its rectification as the output.
    fn valid() -> Graph {
        let mut graph = Graph::new();
        let x = graph.input("x", vector());
        let w = graph.parameter("w", vector());
        let sum = graph.add(x, w).expect("equal shapes");
        let y = graph.apply1(Relu, &[sum]).expect("floats");
        graph.output("y", y);
        graph
    }

    /// What the verifier says of the valid graph after `damage`.
    fn complaint(damage: impl FnOnce(&mut Graph)) -> String {
        let mut graph = valid();
        damage(&mut graph);
        match verify(&graph, "a test") {
            Ok(()) => "nothing".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn a_valid_graph_passes() {
        assert_eq!(complaint(|_| {}), "nothing");
    }

    #[test]
    fn inputs_and_parameters_exist_and_have_names_of_their_own() {
        let missing = complaint(|g| g.inputs[0] = ValueId(99));
        assert_eq!(missing, "after a test: value %99 does not exist");
        let nameless = complaint(|g| g.values[0].name = None);
        assert_eq!(nameless, "after a test: %0 has no name");
        let kind = complaint(|g| g.values[0].kind = ValueKind::Parameter);
        assert_eq!(kind, "after a test: 'x' is listed as Input");
        let twice = complaint(|g| g.values[1].name = Some("x".to_owned()));
        assert_eq!(twice, "after a test: the name 'x' is used twice");
    }

    #[test]
    fn values_are_defined_once_and_before_their_use() {
        let order = complaint(|g| g.nodes.swap(0, 1));
        assert_eq!(
            order,
            "after a test: node 0 (Relu) reads %2 before it is defined"
        );
        let nowhere = complaint(|g| g.nodes[1].inputs[0] = ValueId(99));
        assert_eq!(
            nowhere,
            "after a test: node 1 (Relu) reads %99 before it is defined"
        );
        let again = complaint(|g| g.nodes[1].outputs[0] = ValueId(2));
        assert_eq!(
            again,
            "after a test: node 1 (Relu) defines %2 a second time"
        );
        let input = complaint(|g| g.nodes[1].outputs[0] = ValueId(0));
        assert_eq!(
            input,
            "after a test: node 1 (Relu) defines %0 a second time"
        );
        let missing = complaint(|g| g.nodes[1].outputs[0] = ValueId(99));
        assert_eq!(missing, "after a test: value %99 does not exist");
    }

    #[test]
    fn nodes_have_the_outputs_that_their_operators_infer() {
        let ty = complaint(|g| g.values[3].ty.dtype = DType::I64);
        let expected = "after a test: node 1 (Relu): %3 is i64[2], its operator gives f32[2]";
        assert_eq!(ty, expected);
        let count = complaint(|g| g.nodes[1].outputs.clear());
        assert_eq!(
            count,
            "after a test: node 1 (Relu) has 0 outputs, its operator 1"
        );
        let refused = complaint(|g| g.nodes[0].inputs.truncate(1));
        assert_eq!(refused, "Add of (f32[2]): takes 2 inputs, not 1");
    }

    #[test]
    fn outputs_are_computed_and_have_names_of_their_own() {
        let never = complaint(|g| g.nodes.truncate(1));
        assert_eq!(never, "after a test: output 'y' is never computed");
        let twice = complaint(|g| g.output("y", ValueId(2)));
        assert_eq!(twice, "after a test: two outputs are named 'y'");
        let taken = complaint(|g| g.output("x", ValueId(2)));
        assert_eq!(
            taken,
            "after a test: output 'x' has the name of another value"
        );
        let passed_on = complaint(|g| g.output("x", ValueId(0)));
        assert_eq!(passed_on, "nothing");
    }
}
