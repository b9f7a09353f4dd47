//! The single-stream encoder as other programs take it, with a head of choice: position by position
//! what transformers computes, padding included.
//!
//! Positions are running totals (`CumSum`, as in Optimum's exports), not a product with a
//! triangle of ones: tract 0.23 simplifies that triangle wrongly where the length stays symbolic,
//! without a word.

use super::attention::Scores;
use super::builder::Builder;
use super::config::{ModelConfig, POSITION_OFFSET};
use super::layer::{Rows, final_norm, layer};
use super::lm_head::lm_head;
use super::pooling::{SentenceHead, embed_texts};
use super::pretraining::{ATTENTION_MASK, INPUT_IDS};
use super::relative_bias::relative_bias;
use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};
use crate::ops::Graph;

/// Output of the encoder, `[B, L, D]`.
pub const LAST_HIDDEN_STATE: &str = "last_hidden_state";
/// Output of the language model head, `[B, L, V]`.
pub const LOGITS: &str = "logits";
/// Output of the pooling, `[B, E]`: E is D, or what a linear layer makes of it.
pub const SENTENCE_EMBEDDING: &str = "sentence_embedding";

/// What stands on the encoder.
#[derive(Debug, Clone, PartialEq)]
pub enum Head {
    /// Nothing: `last_hidden_state`.
    None,
    /// The language model head: `logits`.
    MaskedLm,
    /// Embeddings of the texts: `last_hidden_state` and `sentence_embedding`.
    Sentence(SentenceHead),
}

/// What a blocked score becomes: it vanishes beside every other, and a row that may see nothing gets
/// equal shares instead of NaN. In range for f16.
const BLOCKED: f64 = -3e4;

/// Builds the encoder over `input_ids` and `attention_mask`, i64 `[B, L]`. Positions are counted over
/// the ids that are not padding, as in transformers.
///
/// # Errors
/// Where the configuration is not valid.
pub fn encoder(config: &ModelConfig, head: &Head) -> Result<Graph, GraphError> {
    let (rows, length) = (Dim::from(Symbol::BATCH), Dim::from(Symbol::LENGTH));
    let mut b = Builder::new(config, false)?;
    let ty = Type::new(DType::I64, [rows.clone(), length.clone()]);
    let input_ids = b.graph.input(INPUT_IDS, ty.clone());
    let attention_mask = b.graph.input(ATTENTION_MASK, ty);
    let mut x = embed(&mut b, input_ids)?; // [L, B, D]

    // Distances are those of places, the same in every row.
    let places = b.graph.iota(length.clone())?;
    let places = b.graph.reshape(places, [Dim::from(1), length.clone()])?; // [1, L]
    let bias = relative_bias(&mut b, places, places)?; // [1, H, L, L]
    let keep = b.graph.cast(attention_mask, DType::Bool)?; // [B, L]
    let keys = [rows.clone(), 1.into(), 1.into(), length.clone()];
    let keys = b.graph.reshape(keep, keys)?;
    let blocked = b.graph.scalar(BLOCKED)?;
    let bias = b.graph.where_select(keys, bias, blocked)?; // [B, H, L, L]

    for index in 0..config.encoder_layers {
        let all = Rows {
            content: length.clone(),
            start: Dim::from(0),
            end: length.clone(),
        };
        x = layer(&mut b, index, x, &all, Scores::Added(bias))?;
    }
    let x = final_norm(&mut b, x)?;
    let x = b.graph.transpose(x, &[1, 0, 2])?; // [B, L, D]
    match head {
        Head::None => b.graph.output(LAST_HIDDEN_STATE, x),
        Head::MaskedLm => {
            let flat = b.graph.flatten_rows(x)?;
            let logits = lm_head(&mut b, flat)?;
            let shape = [rows, length, config.padded_vocab_size.into()];
            let logits = b.graph.reshape(logits, shape)?;
            b.graph.output(LOGITS, logits);
        }
        Head::Sentence(head) => {
            b.graph.output(LAST_HIDDEN_STATE, x);
            let embedding = embed_texts(&mut b, x, keep, head)?;
            b.graph.output(SENTENCE_EMBEDDING, embedding);
        }
    }
    Ok(b.graph)
}

/// Embeddings of `input_ids` `[B, L]` as `[L, B, D]`.
fn embed(b: &mut Builder, input_ids: ValueId) -> Result<ValueId, GraphError> {
    let graph = &mut b.graph;
    let pad = graph.index(b.config.pad_token_id)?;
    let is_pad = graph.equal(input_ids, pad)?;
    let (zero, one) = (graph.index(0)?, graph.index(1)?);
    let counted = graph.where_select(is_pad, zero, one)?; // [B, L]
    let count = graph.cumsum(counted)?;
    let place = graph.mul(count, counted)?;
    // The first position is 1 behind that of padding.
    let offset = graph.index(POSITION_OFFSET as i64 - 1)?;
    let place = graph.add(place, offset)?;

    let tokens = b.parameter("sentence_encoder.embed_tokens.weight")?;
    let table = b.parameter("sentence_encoder.embed_positions.weight")?;
    let tokens = b.graph.gather(tokens, input_ids)?; // [B, L, D]
    let places = b.graph.gather(table, place)?; // [B, L, D]
    let x = b.graph.add(tokens, places)?;
    let x = b.layer_norm(x, "sentence_encoder.emb_layer_norm")?;
    b.graph.transpose(x, &[1, 0, 2])
}
