//! Token and position embeddings.

use super::builder::Builder;
use super::config::POSITION_OFFSET;
use crate::ir::{DType, GraphError, ValueId};

/// Embeds `input_ids` and `positions`, i64 `[R, B]`; rows where `keep` (bool `[R, B]`) is false are
/// 0. Returns `[R, B, D]`.
pub(super) fn embed(
    b: &mut Builder,
    input_ids: ValueId,
    positions: ValueId,
    keep: ValueId,
) -> Result<ValueId, GraphError> {
    let tokens = b.parameter("sentence_encoder.embed_tokens.weight")?;
    let table = b.parameter("sentence_encoder.embed_positions.weight")?;
    let offset = b.graph.index(POSITION_OFFSET as i64)?;
    let rows = b.graph.add(positions, offset)?;
    let tokens = b.graph.gather(tokens, input_ids)?; // [R, B, D]
    let places = b.graph.gather(table, rows)?; // [R, B, D]
    let x = b.graph.add(tokens, places)?;
    let x = b.layer_norm(x, "sentence_encoder.emb_layer_norm")?;
    let x = b.dropout(x, b.config.dropout, "embeddings")?;
    let keep = b.graph.cast(keep, DType::F32)?;
    let mut column = b.graph.ty(keep).shape.clone();
    column.push(1.into());
    let keep = b.graph.reshape(keep, column)?; // [R, B, 1]
    b.graph.mul(x, keep)
}
