//! AdamW with clipping by the global norm, over a plan's segments, in standard operators.

use crate::ir::{GraphError, Type, ValueId};
use crate::ops::Graph;
use crate::ops::adamw_update::AdamWUpdate;
use crate::ops::reduce::SumSquares;
use mpnet_plan::{AdamW, Dim, Segment, Symbol, names};

/// Added to the norm before the clipping factor is formed, as PyTorch does.
const CLIP_EPSILON: f64 = 1e-6;

/// One of `shards` equal parts of a segment.
fn part(segment: &Segment, shards: usize) -> Type {
    Type::f32([Dim::from(segment.len / shards)])
}

/// The sum of the squares of all elements.
fn sum_of_squares(g: &mut Graph, gradients: &[ValueId]) -> Result<ValueId, GraphError> {
    let mut squares: Option<ValueId> = None;
    for gradient in gradients {
        let square = g.apply1(SumSquares, &[*gradient])?;
        squares = Some(match squares {
            Some(sum) => g.add(sum, square)?,
            None => square,
        });
    }
    match squares {
        Some(squares) => Ok(squares),
        None => g.scalar(0.0),
    }
}

/// A rank's parts of the gradients in, the sum of their squares out.
///
/// # Errors
/// Never in practice.
pub(super) fn squares_graph(segments: &[Segment], shards: usize) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let gradients: Vec<ValueId> = segments
        .iter()
        .map(|segment| graph.input(&segment.gradients.input, part(segment, shards)))
        .collect();
    let squares = sum_of_squares(&mut graph, &gradients)?;
    graph.output(names::SQUARES, squares);
    Ok(graph)
}

/// The update: segments and the scalars of [`names`] in, new segments and the gradients' norm out. An
/// update whose gradients are not all finite changes nothing. Of several shards it takes one rank's parts;
/// where the sum of squares is `given`, that of all of them.
///
/// # Errors
/// Never in practice.
pub(super) fn optimizer_graph(
    adamw: &AdamW,
    segments: &[Segment],
    shards: usize,
    given: bool,
) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let g = &mut graph;
    let scalar = || Type::f32([]);
    let step_size = g.input(names::STEP_SIZE, scalar());
    let decay = g.input(names::DECAY, scalar());
    let second_correction = g.input(names::SECOND_CORRECTION, scalar());
    let gradient_scale = g.input(names::GRADIENT_SCALE, scalar());
    let inputs: Vec<[ValueId; 4]> = segments
        .iter()
        .map(|segment| {
            [
                &segment.parameters,
                &segment.gradients,
                &segment.first_moments,
                &segment.second_moments,
            ]
            .map(|link| g.input(&link.input, part(segment, shards)))
        })
        .collect();

    let gradients: Vec<ValueId> = inputs.iter().map(|[_, gradient, _, _]| *gradient).collect();
    let squares = match given {
        false => sum_of_squares(g, &gradients)?,
        true => g.input(names::SQUARES, scalar()),
    };
    let norm = g.sqrt(squares)?;
    let norm = g.mul(norm, gradient_scale)?;
    g.output(names::GRADIENT_NORM, norm);
    let mut factor = gradient_scale;
    if adamw.clip_grad_norm > 0.0 {
        let limit = g.scalar(f64::from(adamw.clip_grad_norm))?;
        let epsilon = g.scalar(CLIP_EPSILON)?;
        let one = g.scalar(1.0)?;
        let padded = g.add(norm, epsilon)?;
        let ratio = g.div(limit, padded)?;
        let above = g.less(ratio, one)?;
        let clip = g.where_select(above, ratio, one)?;
        factor = g.mul(factor, clip)?;
    }
    let one = g.scalar(1.0)?;
    let update = AdamWUpdate {
        beta1: adamw.beta1,
        beta2: adamw.beta2,
        epsilon: adamw.epsilon,
    };
    for (segment, [parameter, gradient, first, second]) in segments.iter().zip(inputs) {
        let decays = segment.decays && adamw.weight_decay > 0.0;
        let new = g.apply(
            update.clone(),
            &[
                parameter,
                first,
                second,
                gradient,
                norm,
                factor,
                step_size,
                if decays { decay } else { one },
                second_correction,
            ],
        )?;
        let links = [
            &segment.parameters,
            &segment.first_moments,
            &segment.second_moments,
        ];
        for (link, new) in links.into_iter().zip(new) {
            g.output(&link.output, new);
        }
    }
    Ok(graph)
}

/// Every gradient segment filled with the input `zero`.
///
/// # Errors
/// Never in practice.
pub(super) fn clear_graph(segments: &[Segment]) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    // An input, not a constant: constants are folded into tensors of the segments' sizes.
    let zero = graph.input(names::ZERO, Type::f32([]));
    for segment in segments {
        let filled = graph.expand(zero, [Dim::from(segment.len)])?;
        graph.output(&segment.gradients.output, filled);
    }
    Ok(graph)
}

/// One f32 vector copied: the way in and out of a device's memory.
///
/// # Errors
/// Never in practice.
pub(super) fn copy_graph() -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let vector = Type::f32([Dim::from(Symbol::LENGTH)]);
    let source = graph.input(names::COPY_SOURCE, vector);
    graph.output(names::COPY_TARGET, source);
    Ok(graph)
}
