//! Graphs as text, one node a line: for people, snapshots and error messages.

use super::graph::{Graph, ValueId};
use super::operation::Operation;
use std::fmt;

impl<O: Operation> Graph<O> {
    /// The name under which a value is printed and emitted: its own, or `%index`.
    pub fn label(&self, value: ValueId) -> String {
        match &self.value(value).name {
            Some(name) => name.clone(),
            None => format!("%{}", value.0),
        }
    }
}

impl<O: Operation> fmt::Display for Graph<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (kind, list) in [("input", &self.inputs), ("parameter", &self.parameters)] {
            for value in list {
                writeln!(f, "{kind} {}: {}", self.label(*value), self.ty(*value))?;
            }
        }
        for node in &self.nodes {
            let outputs: Vec<String> = node
                .outputs
                .iter()
                .map(|v| format!("{}: {}", self.label(*v), self.ty(*v)))
                .collect();
            let inputs: Vec<String> = node.inputs.iter().map(|v| self.label(*v)).collect();
            writeln!(
                f,
                "{} = {}({}){}",
                outputs.join(", "),
                node.op.name(),
                inputs.join(", "),
                node.op.attributes(),
            )?;
        }
        for (name, value) in &self.outputs {
            writeln!(f, "output {name} = {}", self.label(*value))?;
        }
        Ok(())
    }
}
