//! Reverse-mode differentiation over the IR: derivatives are IR too, and only what leads from a
//! parameter to the loss is built.

use crate::ir::{Dim, Graph, GraphError, ValueId};
use crate::ops::Vjp;

/// Appends the gradient of `loss` (a float without dimensions) to `graph` and returns that of each
/// parameter, in order; `None` for a parameter on which the loss does not depend.
///
/// # Errors
/// Where an operator on the way has no derivative.
pub fn gradients(graph: &mut Graph, loss: ValueId) -> Result<Vec<Option<ValueId>>, GraphError> {
    let forward = graph.nodes.len();
    // Which values depend on a parameter through floats.
    let mut active = vec![false; graph.values.len()];
    for parameter in &graph.parameters {
        active[parameter.0] = true;
    }
    for node in &graph.nodes {
        if node.inputs.iter().any(|v| active[v.0]) {
            for output in &node.outputs {
                active[output.0] = graph.ty(*output).dtype.is_float();
            }
        }
    }
    let mut grads: Vec<Option<ValueId>> = vec![None; graph.values.len()];
    let one = graph.scalar(1.0)?;
    grads[loss.0] = Some(one);
    for index in (0..forward).rev() {
        let node = graph.nodes[index].clone();
        let outputs: Vec<_> = node.outputs.iter().map(|v| grads[v.0]).collect();
        if outputs.iter().all(Option::is_none) || !node.inputs.iter().any(|v| active[v.0]) {
            continue;
        }
        let at = Vjp {
            node: &node,
            grads: &outputs,
        };
        let operator = node.op.operator();
        let inputs = operator.vjp(graph, &at)?;
        if inputs.len() != node.inputs.len() {
            return Err(GraphError::Derivative {
                op: operator.name(),
                reason: format!(
                    "{} gradients for {} inputs",
                    inputs.len(),
                    node.inputs.len()
                ),
            });
        }
        for (input, grad) in node.inputs.iter().zip(inputs) {
            let Some(grad) = grad.filter(|_| active[input.0]) else {
                continue;
            };
            let grad = undo_broadcast(graph, grad, *input)?;
            grads[input.0] = Some(match grads[input.0] {
                Some(sum) => graph.add(sum, grad)?,
                None => grad,
            });
        }
    }
    Ok(graph.parameters.iter().map(|p| grads[p.0]).collect())
}

/// Sums a gradient over the dimensions along which its value was repeated.
fn undo_broadcast(graph: &mut Graph, grad: ValueId, value: ValueId) -> Result<ValueId, GraphError> {
    let from = graph.ty(grad).shape.clone();
    let to = graph.ty(value).shape.clone();
    if from == to {
        return Ok(grad);
    }
    let extra = from.len().saturating_sub(to.len());
    let axes: Vec<usize> = (0..from.len())
        .filter(|&i| i < extra || (to[i - extra] != from[i] && to[i - extra] == Dim::from(1)))
        .collect();
    if axes.is_empty() {
        return Err(GraphError::Derivative {
            op: "broadcast",
            reason: format!("{} for {}", graph.ty(grad), graph.ty(value)),
        });
    }
    let sum = graph.reduce_sum(grad, &axes, false)?;
    graph.reshape(sum, to)
}
