//! Computes equal nodes once: same operator, same inputs.

use crate::ir::{GraphError, ValueId};
use crate::ops::Graph;
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
            .find(|other: &&crate::ops::Node| other.op == node.op);
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

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{Dim, GraphError, Type};
    use crate::ops::Graph;
    use crate::passes::testing::rewritten;

    fn matrix() -> Type {
        Type::f32([Dim::from(3), Dim::from(3)])
    }

    #[test]
    fn equal_nodes_and_what_follows_from_them_are_computed_once() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", matrix());
        for name in ["a", "b"] {
            let one = graph.scalar(1.0)?;
            let sum = graph.add(x, one)?;
            let y = graph.relu(sum)?;
            graph.output(name, y);
        }
        assert_eq!(rewritten(&mut graph, run), ["Constant", "Add", "Relu"]);
        // Both names stay.
        assert_eq!(graph.outputs()[0].1, graph.outputs()[1].1);
        assert_eq!(graph.outputs()[1].0, "b");
        Ok(())
    }

    #[test]
    fn other_attributes_other_inputs_and_other_zeros_stay_apart() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", matrix());
        let y = graph.input("y", matrix());
        let gelus = [
            graph.gelu(x, false)?,
            graph.gelu(x, true)?,
            graph.gelu(y, true)?,
        ];
        let zeros = [graph.scalar(0.0)?, graph.scalar(-0.0)?];
        for (i, value) in gelus.into_iter().chain(zeros).enumerate() {
            graph.output(format!("out{i}"), value);
        }
        let kept = ["Gelu", "Gelu", "Gelu", "Constant", "Constant"];
        assert_eq!(rewritten(&mut graph, run), kept);
        Ok(())
    }
}
