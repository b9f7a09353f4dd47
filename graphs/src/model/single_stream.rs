//! The encoder over whole texts in a single stream, as it is trained: rows first and with dropout.
//!
//! What `encoder.rs` builds for other programs gives the same numbers; this one has the form that the fused kernels
//! and the derivative want.

use super::attention::Scores;
use super::builder::{AttentionForm, Builder};
use super::embeddings::embed;
use super::layer::{Stack, layers};
use super::relative_bias::{bias_by_distance, relative_bias};
use super::streams::block;
use crate::ir::{Dim, GraphError, ValueId};

/// Hidden states of texts.
pub(super) struct Encoded {
    /// `[T, L, D]`
    pub hidden: ValueId,
    /// What each layer reads, from the first on.
    pub checkpoints: Vec<ValueId>,
}

/// The hidden states of `input_ids` i64 `[T, L]`, of which those that `keep` (bool `[T, L]`) names are no padding;
/// that stands behind each text.
///
/// # Errors
/// Where the inputs have other shapes.
pub(super) fn encode(
    b: &mut Builder,
    input_ids: ValueId,
    keep: ValueId,
    attention: AttentionForm,
) -> Result<Encoded, GraphError> {
    let shape = b.graph.ty(input_ids).shape.clone();
    let [_, length] = &shape[..] else {
        return Err(GraphError::Description("texts are not [T, L]".to_owned()));
    };
    let places = b.graph.iota(length.clone())?; // [L]
    let column = b.graph.reshape(places, [length.clone(), 1.into()])?;
    let ids = b.graph.transpose(input_ids, &[1, 0])?;
    let kept = b.graph.transpose(keep, &[1, 0])?;
    let x = embed(b, ids, column, kept)?; // [L, T, D]
    let row = b.graph.reshape(places, [Dim::from(1), length.clone()])?;
    let scores = match attention {
        AttentionForm::Fused => Scores::Fused {
            positions: b.graph.expand(row, shape.clone())?,
            keep,
            bias: bias_by_distance(b)?,
        },
        AttentionForm::Expanded => {
            let bias = relative_bias(b, row, row)?; // [1, H, L, L]
            Scores::Added(block(b, bias, None, keep)?) // [T, H, L, L]
        }
    };
    let stack = Stack {
        content: length.clone(),
        read: Dim::from(0),
        rows: length.clone(),
    };
    let (x, checkpoints) = layers(b, x, &stack, [scores; 2])?;
    Ok(Encoded {
        hidden: b.graph.transpose(x, &[1, 0, 2])?,
        checkpoints,
    })
}
