//! Cross entropy and accuracy over the predicted tokens.

use super::builder::Builder;
use crate::ir::{DType, GraphError, ValueId};
use crate::ops::cross_entropy::CrossEntropy;

/// Summed loss and number of correct predictions, floats without dimensions, of logits `[N, V]`
/// against targets i64 `[N]`; padding counts nothing.
pub(super) fn loss_and_correct(
    b: &mut Builder,
    logits: ValueId,
    targets: ValueId,
) -> Result<(ValueId, ValueId), GraphError> {
    let pad = b.config.pad_token_id;
    let graph = &mut b.graph;
    let loss = graph.apply1(CrossEntropy { ignore_index: pad }, &[logits, targets])?;
    let best = graph.argmax(logits)?; // [N]
    // A padding target equals no prediction: predictions there become −1.
    let (pad, none) = (graph.index(pad)?, graph.index(-1)?);
    let is_pad = graph.equal(targets, pad)?;
    let best = graph.where_select(is_pad, none, best)?;
    let hit = graph.equal(best, targets)?;
    let hit = graph.cast(hit, DType::F32)?;
    let correct = graph.reduce_sum(hit, &[0], false)?;
    Ok((loss, correct))
}
