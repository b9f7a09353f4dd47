//! The language model head, tied to the token embeddings.

use super::activation;
use super::builder::Builder;
use crate::ir::{GraphError, ValueId};

/// Logits `[…, V]` of hidden states `[…, D]`.
pub(super) fn lm_head(b: &mut Builder, x: ValueId) -> Result<ValueId, GraphError> {
    let x = b.linear(x, "lm_head.dense")?;
    let x = activation::apply(&mut b.graph, b.config.activation_fn, x)?;
    let x = b.layer_norm(x, "lm_head.layer_norm")?;
    let tied = b.parameter("sentence_encoder.embed_tokens.weight")?;
    let bias = b.parameter("lm_head.bias")?;
    let logits = b.graph.linear(x, tied)?;
    b.graph.add(logits, bias)
}
