//! Computes nodes whose inputs are all constants, where the result is small and has no symbolic
//! size.

use crate::ir::{Array, Bindings, Graph, GraphError, ValueId};
use crate::ops::{Op, constant::Constant};
use std::collections::HashMap;

/// Above this many elements a result is left to be computed: it would only grow the file.
const MAX_ELEMENTS: usize = 4096;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    // No folded node reads a symbolic size, so any will do.
    let sizes = Bindings {
        batch: 1,
        length: 1,
        predicted: 1,
    };
    let mut known: HashMap<ValueId, Array> = HashMap::new();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let operator = node.op.operator();
        let fail = |reason: String| GraphError::Evaluate {
            op: operator.name(),
            reason,
        };
        if let Op::Constant(_) = node.op {
            let value = operator.evaluate(&sizes, &[]).map_err(fail)?;
            known.extend(node.outputs.iter().copied().zip(value));
            continue;
        }
        let inputs: Option<Vec<&Array>> = node.inputs.iter().map(|v| known.get(v)).collect();
        let [output] = node.outputs[..] else { continue };
        let ty = graph.ty(output);
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_const()).collect();
        let (Some(inputs), Some(shape)) = (inputs, shape) else {
            continue;
        };
        if inputs.is_empty() || shape.iter().product::<usize>() > MAX_ELEMENTS {
            continue;
        }
        let Some(array) = operator.evaluate(&sizes, &inputs).map_err(fail)?.pop() else {
            continue;
        };
        let constant = Constant {
            dtype: ty.dtype,
            shape,
            values: array.iter().copied().collect(),
        };
        known.insert(output, array);
        let node = &mut graph.nodes[index];
        node.op = constant.into();
        node.inputs.clear();
    }
    Ok(())
}
