//! From the graph of a loss to that of its gradients: a pass of every target that trains.

use crate::autodiff;
use crate::ir::{GraphError, Type, ValueId};
use crate::model::task::{LOSS_SUM, OBJECTIVE};
use crate::ops::Graph;
use mpnet_plan::{Dim, names};

/// Begins the names of outputs between which layers are computed again by their derivative.
const CHECKPOINT: &str = "checkpoint.";

/// Names `checkpoints` as outputs, for [`differentiate`].
pub(super) fn mark(graph: &mut Graph, checkpoints: &[ValueId]) {
    for (index, checkpoint) in checkpoints.iter().enumerate() {
        graph.output(format!("{CHECKPOINT}{index}"), *checkpoint);
    }
}

/// Scales the loss, the output [`OBJECTIVE`], which is taken away, or else [`LOSS_SUM`], by a further input, [`names::LOSS_SCALE`], and names it and
/// every parameter's gradient as further outputs: [`names::LOSS`] before all others,
/// [`names::exposed_gradient`] behind them.
///
/// # Errors
/// Where there is no loss, or it does not depend on a parameter.
pub(super) fn differentiate(graph: &mut Graph) -> Result<(), GraphError> {
    let (checkpoints, mut figures): (Vec<_>, Vec<_>) = std::mem::take(&mut graph.outputs)
        .into_iter()
        .partition(|(name, _)| name.starts_with(CHECKPOINT));
    let checkpoints: Vec<ValueId> = checkpoints.into_iter().map(|(_, value)| value).collect();
    let refused = |op, reason| GraphError::Derivative { op, reason };
    let named = |wanted: &str| figures.iter().position(|(name, _)| name == wanted);
    let loss_sum = match (named(OBJECTIVE), named(LOSS_SUM)) {
        (Some(place), _) => figures.remove(place).1,
        (None, Some(place)) => figures[place].1,
        (None, None) => return Err(refused("loss", format!("there is no output '{LOSS_SUM}'"))),
    };
    let scale = graph.input(names::LOSS_SCALE, Type::f32([Dim::from(1)]));
    let scale = graph.reshape(scale, [])?;
    let loss = graph.mul(loss_sum, scale)?;
    let grads = autodiff::gradients_from_checkpoints(graph, loss, &checkpoints)?;
    graph.output(names::LOSS, loss);
    graph.outputs.extend(figures);
    for (parameter, grad) in graph.parameters().to_vec().into_iter().zip(grads) {
        let name = graph.label(parameter);
        let missing = || refused("parameter", format!("the loss does not depend on '{name}'"));
        let grad = grad.ok_or_else(missing)?;
        graph.output(names::exposed_gradient(&name), grad);
    }
    Ok(())
}

/// Takes the gradients of all parameters, in their order, from the outputs.
///
/// # Errors
/// Where one is missing.
pub(super) fn take_gradients(graph: &mut Graph) -> Result<Vec<(ValueId, ValueId)>, GraphError> {
    let mut taken = Vec::new();
    for parameter in graph.parameters().to_vec() {
        let name = names::exposed_gradient(&graph.label(parameter));
        let place = graph.outputs.iter().position(|(output, _)| *output == name);
        let place = place.ok_or_else(|| GraphError::Derivative {
            op: "parameter",
            reason: format!("there is no output '{name}'"),
        })?;
        taken.push((parameter, graph.outputs.remove(place).1));
    }
    Ok(taken)
}
