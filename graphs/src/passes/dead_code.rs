//! Removes nodes that no output needs.

use crate::ir::GraphError;
use crate::ops::Graph;

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

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{Dim, GraphError, Type};
    use crate::ops::Graph;
    use crate::ops::concat::Split;
    use crate::passes::testing::rewritten;

    #[test]
    fn what_no_output_needs_is_removed_with_what_only_it_needed() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(4)]));
        let unread = graph.parameter("unread", Type::f32([Dim::from(4)]));
        let halves = Split {
            axis: 0,
            sizes: vec![2, 2],
        };
        let halves = graph.apply(halves, &[x])?;
        let dead = graph.tanh(unread)?;
        graph.relu(dead)?;
        let y = graph.sigmoid(halves[1])?;
        graph.output("y", y);
        // One output of the split is read, so all of it stays.
        assert_eq!(rewritten(&mut graph, run), ["Split", "Sigmoid"]);
        assert_eq!((graph.inputs().len(), graph.parameters().len()), (1, 1));
        Ok(())
    }
}
