//! A reference interpreter in f64: slow, obvious, and independent of ONNX Runtime. Gradient checks
//! and constant folding use it.

use super::graph::{Graph, GraphError, ValueId};
use super::operation::Operation;
use mpnet_plan::Bindings;
use ndarray::ArrayD;
use std::collections::HashMap;

/// A tensor of the interpreter; integers and booleans are held as f64 too.
pub type Array = ArrayD<f64>;

/// Runs `graph` on `feeds`, inputs and parameters by name, and returns its outputs in order.
///
/// # Errors
/// Where a value is missing, has another shape than the graph says, or an operator refuses it.
pub fn interpret<O: Operation>(
    graph: &Graph<O>,
    bindings: &Bindings,
    feeds: &HashMap<String, Array>,
) -> Result<Vec<Array>, GraphError> {
    let invalid = |reason: String| GraphError::Invalid {
        stage: "interpretation".to_owned(),
        reason,
    };
    let mut values: HashMap<ValueId, Array> = HashMap::new();
    for id in graph.inputs.iter().chain(&graph.parameters) {
        let name = graph.label(*id);
        let array = feeds
            .get(&name)
            .ok_or_else(|| invalid(format!("'{name}' was not fed")))?;
        values.insert(*id, array.clone());
    }
    let check = |id: ValueId, array: &Array| {
        let expected = mpnet_plan::shape(&graph.ty(id).shape, bindings)
            .map_err(|unbound| invalid(unbound.to_string()))?;
        if array.shape() == expected {
            Ok(())
        } else {
            Err(invalid(format!(
                "{}: {} has shape {:?}",
                graph.label(id),
                graph.ty(id),
                array.shape()
            )))
        }
    };
    for (id, array) in &values {
        check(*id, array)?;
    }
    for node in &graph.nodes {
        let inputs: Vec<&Array> = node.inputs.iter().map(|v| &values[v]).collect();
        let outputs =
            node.op
                .evaluate(bindings, &inputs)
                .map_err(|reason| GraphError::Evaluate {
                    op: node.op.name(),
                    reason,
                })?;
        for (id, array) in node.outputs.iter().zip(outputs) {
            check(*id, &array)?;
            values.insert(*id, array);
        }
    }
    Ok(graph
        .outputs
        .iter()
        .map(|(_, v)| values[v].clone())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Dim, Symbol, Type};
    use crate::ops::Graph;

    #[test]
    fn feeds_are_there_and_have_the_shapes_declared() {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(Symbol::LENGTH)]));
        graph.output("y", x);
        let sizes = Bindings::new([
            (Symbol::BATCH, 1),
            (Symbol::LENGTH, 3),
            (Symbol::PREDICTED, 1),
        ]);
        let of = |feeds: HashMap<String, Array>| interpret(&graph, &sizes, &feeds);
        let vector = |n| HashMap::from([("x".to_owned(), Array::zeros(ndarray::IxDyn(&[n])))]);
        assert_eq!(of(vector(3)).unwrap().len(), 1);
        let missing = of(HashMap::new()).unwrap_err().to_string();
        assert_eq!(missing, "after interpretation: 'x' was not fed");
        let shape = of(vector(2)).unwrap_err().to_string();
        assert_eq!(shape, "after interpretation: x: f32[L] has shape [2]");
    }
}
