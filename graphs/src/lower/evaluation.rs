//! The graph of an evaluation, from which every target's is made.

use crate::ir::GraphError;
use crate::model::AttentionForm;
use crate::model::task::{Task, loss_graph};
use crate::ops::Graph;
use crate::passes::{Pipeline, tidy};

/// The optimised evaluation graph of `task`; with `expose`, what it shows for verification are further outputs.
///
/// # Errors
/// Where the task's settings are not valid.
pub fn eval_graph(task: &dyn Task, expose: bool) -> Result<Graph, GraphError> {
    eval_graph_with(task, expose, AttentionForm::Expanded)
}

/// [`eval_graph`] with attention in the form asked for.
///
/// # Errors
/// Where the task's settings are not valid.
pub(super) fn eval_graph_with(
    task: &dyn Task,
    expose: bool,
    attention: AttentionForm,
) -> Result<Graph, GraphError> {
    let mut graph = figures(task, expose, attention)?;
    passes().run(&mut graph)?;
    Ok(graph)
}

/// The passes that make [`eval_graph`].
pub fn passes() -> Pipeline {
    Pipeline::of("tidy", tidy())
}

/// The loss and the other figures of `task`, as they are defined.
///
/// # Errors
/// As [`eval_graph`].
pub(super) fn figures(
    task: &dyn Task,
    expose: bool,
    attention: AttentionForm,
) -> Result<Graph, GraphError> {
    let model = loss_graph(task, false, attention)?;
    let mut outputs: Vec<_> = model.all_figures().collect();
    outputs.extend(model.evaluated);
    if expose {
        outputs.extend(model.exposed);
    }
    let mut graph = model.graph;
    for (name, value) in outputs {
        graph.output(name, value);
    }
    Ok(graph)
}
