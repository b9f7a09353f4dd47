//! Graphs without derivatives, parameters included as initializers or left as inputs.

use crate::ir::{Graph, GraphError};
use crate::onnx::model::to_onnx;
use crate::ops::Kernel;
use crate::passes;

/// Optimises `graph` and serialises it with its inputs followed by its parameters as inputs.
///
/// # Errors
/// Where a pass breaks the graph or it needs kernels of training builds.
pub fn lower(mut graph: Graph, name: &str) -> Result<Vec<u8>, GraphError> {
    passes::run(&mut graph, passes::PASSES)?;
    let inputs = [graph.inputs(), graph.parameters()].concat();
    to_onnx(&graph, name, &inputs, Kernel::Contrib)
}
