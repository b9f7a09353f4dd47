//! Cross entropy and accuracy over the predicted tokens.
//!
//! Steps scale the loss by the input `loss_scale`, 1 / predicted tokens of the whole update, so
//! that accumulated gradients need no division.

use super::builder::Builder;
use crate::ir::{DType, GraphError, ValueId};
use crate::ops::Graph;
use crate::ops::cross_entropy::CrossEntropy;

/// Summed loss, a float without dimensions, of logits `[N, V]` against targets i64 `[N]`; padding
/// counts nothing.
pub(super) fn loss(
    b: &mut Builder,
    logits: ValueId,
    targets: ValueId,
) -> Result<ValueId, GraphError> {
    let ignore_index = b.config.pad_token_id;
    b.graph
        .apply1(CrossEntropy { ignore_index }, &[logits, targets])
}

/// Number of predictions `best` i64 `[N]` that are the targets i64 `[N]`, a float without dimensions;
/// padding counts nothing.
pub(super) fn correct(
    b: &mut Builder,
    best: ValueId,
    targets: ValueId,
) -> Result<ValueId, GraphError> {
    let pad = b.config.pad_token_id;
    let graph = &mut b.graph;
    // A padding target equals no prediction: predictions there become −1.
    let (pad, none) = (graph.index(pad)?, graph.index(-1)?);
    let is_pad = graph.equal(targets, pad)?;
    let best = graph.where_select(is_pad, none, best)?;
    hits(graph, best, targets)
}

/// What a loss says of a batch's rows.
pub(super) struct Judged {
    /// The loss, summed over the rows, a float without dimensions.
    pub loss_sum: ValueId,
    /// What is differentiated in its place, a float without dimensions, where that is something else.
    pub objective: Option<ValueId>,
    /// Rows that came out right, a float without dimensions.
    pub correct: ValueId,
    /// The numbers from which the loss is computed.
    pub scores: ValueId,
}

/// Summed cross entropy of `logits` `[N, V]` against `targets` i64 `[N]`, of which those of −1 count nothing.
pub(super) fn cross_entropy(
    graph: &mut Graph,
    logits: ValueId,
    targets: ValueId,
) -> Result<ValueId, GraphError> {
    graph.apply1(CrossEntropy { ignore_index: -1 }, &[logits, targets])
}

/// Number of predictions `best` i64 `[N]` that are the targets i64 `[N]`, a float without dimensions.
pub(super) fn hits(
    graph: &mut Graph,
    best: ValueId,
    targets: ValueId,
) -> Result<ValueId, GraphError> {
    let hit = graph.equal(best, targets)?;
    let hit = graph.cast(hit, DType::F32)?;
    graph.reduce_sum(hit, &[0], false)
}
