//! AdamW with clipping by the global norm, over the segments of a [`Layout`], in standard operators.

use super::layout::{Layout, Segment};
use crate::ir::{DType, Dim, Graph, GraphError, Type, ValueId};
use crate::ops::adamw_update::AdamWUpdate;
use crate::ops::sum_squares::SumSquares;
use crate::optimizer::adamw::AdamW;

/// Inputs without dimensions, f32, that the caller computes for every update t.
pub mod scalars {
    /// `lr / (1 − β1^t)`
    pub const STEP_SIZE: &str = "step_size";
    /// `1 − lr · weight_decay`
    pub const DECAY: &str = "decay";
    /// `1 / √(1 − β2^t)`
    pub const SECOND_CORRECTION: &str = "second_correction";
    /// What the gradients are to be multiplied by: 1, or the inverse of the loss's scaling.
    pub const GRADIENT_SCALE: &str = "gradient_scale";
    /// 0: what [`super::clear_graph`] fills the gradients with.
    pub const ZERO: &str = "zero";
}

/// Vectors of a segment; each is an input under this name and an output under [`new_name`] of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentNames {
    pub parameter: String,
    pub gradient: String,
    pub first_moment: String,
    pub second_moment: String,
}

impl SegmentNames {
    /// The names of segment `index`.
    pub fn new(index: usize) -> SegmentNames {
        let name = |kind: &str| format!("segment.{index}.{kind}");
        SegmentNames {
            parameter: name("parameter"),
            gradient: name("gradient"),
            first_moment: name("first_moment"),
            second_moment: name("second_moment"),
        }
    }
}

/// The output that replaces an input.
pub fn new_name(name: &str) -> String {
    format!("{name}.new")
}

/// Added to the norm before the clipping factor is formed, as PyTorch does.
const CLIP_EPSILON: f64 = 1e-6;

fn vector(segment: &Segment) -> Type {
    Type::f32([Dim::from(segment.len)])
}

/// The update: segments and [`scalars`] in, new segments and `norm_output` out. An update whose
/// gradients are not all finite changes nothing.
///
/// # Errors
/// Never in practice.
pub fn optimizer_graph(
    adamw: &AdamW,
    layout: &Layout,
    norm_output: &str,
) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let g = &mut graph;
    let scalar = || Type::f32([]);
    let step_size = g.input(scalars::STEP_SIZE, scalar());
    let decay = g.input(scalars::DECAY, scalar());
    let second_correction = g.input(scalars::SECOND_CORRECTION, scalar());
    let gradient_scale = g.input(scalars::GRADIENT_SCALE, scalar());
    let names: Vec<_> = (0..layout.segments.len()).map(SegmentNames::new).collect();
    let inputs: Vec<[ValueId; 4]> = names
        .iter()
        .zip(&layout.segments)
        .map(|(names, segment)| {
            [
                g.input(&names.parameter, vector(segment)),
                g.input(&names.gradient, vector(segment)),
                g.input(&names.first_moment, vector(segment)),
                g.input(&names.second_moment, vector(segment)),
            ]
        })
        .collect();

    let mut squares: Option<ValueId> = None;
    for [_, gradient, _, _] in &inputs {
        let square = g.apply1(SumSquares, &[*gradient])?;
        squares = Some(match squares {
            Some(sum) => g.add(sum, square)?,
            None => square,
        });
    }
    let squares = match squares {
        Some(squares) => squares,
        None => g.scalar(0.0)?,
    };
    let norm = g.sqrt(squares)?;
    let norm = g.mul(norm, gradient_scale)?;
    g.output(norm_output, norm);
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
    for ((names, segment), [parameter, gradient, first, second]) in
        names.iter().zip(&layout.segments).zip(inputs)
    {
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
        let names = [&names.parameter, &names.first_moment, &names.second_moment];
        for (name, new) in names.into_iter().zip(new) {
            g.output(new_name(name), new);
        }
    }
    Ok(graph)
}

/// Every gradient segment filled with the input `zero`.
///
/// # Errors
/// Never in practice.
pub fn clear_graph(layout: &Layout) -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    // An input, not a constant: constants are folded into tensors of the segments' sizes.
    let zero = graph.input(scalars::ZERO, Type::f32([]));
    for (index, segment) in layout.segments.iter().enumerate() {
        let filled = graph.expand(zero, [Dim::from(segment.len)])?;
        graph.output(new_name(&SegmentNames::new(index).gradient), filled);
    }
    Ok(graph)
}

/// One f32 vector copied: the way in and out of a device's memory.
///
/// # Errors
/// Never in practice.
pub fn copy_graph() -> Result<Graph, GraphError> {
    let mut graph = Graph::new();
    let source = graph.input(
        COPY.0,
        Type::new(DType::F32, [crate::ir::Symbol::Length.into()]),
    );
    graph.output(COPY.1, source);
    Ok(graph)
}

/// Input and output of [`copy_graph`].
pub const COPY: (&str, &str) = ("source", "target");
