//! The activations, from the IR's operators.

use super::config::Activation;
use crate::ir::{GraphError, ValueId};
use crate::ops::Graph;

/// Applies `activation` elementwise.
pub(super) fn apply(
    graph: &mut Graph,
    activation: Activation,
    x: ValueId,
) -> Result<ValueId, GraphError> {
    match activation {
        Activation::Gelu => graph.gelu(x, false),
        Activation::GeluAccurate => graph.gelu(x, true),
        Activation::Relu => graph.relu(x),
        Activation::Silu => {
            let gate = graph.sigmoid(x)?;
            graph.mul(x, gate)
        }
        Activation::Relu2 => {
            let y = graph.relu(x)?;
            graph.mul(y, y)
        }
        Activation::Tanh => graph.tanh(x),
        Activation::Linear => Ok(x),
    }
}
