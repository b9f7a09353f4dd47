//! The single-stream encoder as other programs take it, with a head of choice: position by position
//! what transformers computes, padding included.
//!
//! Positions are running totals (`CumSum`, as in Optimum's exports), not a product with a
//! triangle of ones: tract 0.23 simplifies that triangle wrongly where the length stays symbolic,
//! without a word.
//!
//! It is written for compilers of other people: texts first, so that no reshape needs a size that is free,
//! and what is hidden from attention by arithmetic, as some cannot choose by a boolean.

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

/// How many texts of what length a graph takes.
#[derive(Debug, Clone, PartialEq)]
pub struct TextSizes {
    pub texts: Dim,
    pub length: Dim,
}

impl Default for TextSizes {
    /// Any number of any length.
    fn default() -> TextSizes {
        TextSizes {
            texts: Symbol::BATCH.into(),
            length: Symbol::LENGTH.into(),
        }
    }
}

/// Builds the encoder over `input_ids` and `attention_mask`, i64 `[B, L]` of `sizes`. Positions are counted over
/// the ids that are not padding, as in transformers.
///
/// # Errors
/// Where the configuration is not valid.
pub fn encoder(config: &ModelConfig, head: &Head, sizes: &TextSizes) -> Result<Graph, GraphError> {
    let TextSizes { texts, length } = sizes.clone();
    let mut b = Builder::new(config, false)?;
    let ty = Type::new(DType::I64, [texts.clone(), length.clone()]);
    let input_ids = b.graph.input(INPUT_IDS, ty.clone());
    let attention_mask = b.graph.input(ATTENTION_MASK, ty);
    let mut x = embed(&mut b, input_ids)?; // [B, L, D]

    // Distances are those of places, the same in every row.
    let places = b.graph.iota(length.clone())?;
    let places = b.graph.reshape(places, [Dim::from(1), length.clone()])?; // [1, L]
    let bias = relative_bias(&mut b, places, places)?; // [1, H, L, L]
    let keep = b.graph.cast(attention_mask, DType::Bool)?; // [B, L]
    let seen = b.graph.cast(keep, DType::F32)?;
    let one = b.graph.scalar(1.0)?;
    let hidden = b.graph.sub(one, seen)?;
    let blocked = b.graph.scalar(BLOCKED)?;
    let blocked = b.graph.mul(hidden, blocked)?;
    let keys = [texts.clone(), 1.into(), 1.into(), length];
    let blocked = b.graph.reshape(blocked, keys)?;
    let bias = b.graph.add(bias, blocked)?; // [B, H, L, L]

    for index in 0..config.encoder_layers {
        let all = Rows {
            content: texts.clone(),
            start: Dim::from(0),
            end: texts.clone(),
        };
        x = layer(&mut b, index, x, &all, Scores::TextsFirst(bias))?;
    }
    let x = final_norm(&mut b, x)?; // [B, L, D]
    match head {
        Head::None => b.graph.output(LAST_HIDDEN_STATE, x),
        Head::MaskedLm => {
            let logits = lm_head(&mut b, x)?;
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

/// Embeddings of `input_ids` `[B, L]` as `[B, L, D]`.
fn embed(b: &mut Builder, input_ids: ValueId) -> Result<ValueId, GraphError> {
    let graph = &mut b.graph;
    let pad = graph.index(b.config.pad_token_id)?;
    let is_pad = graph.equal(input_ids, pad)?;
    // Not by arithmetic: tract takes integers that were cast for sizes, of which it makes no running totals.
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
    b.layer_norm(x, "sentence_encoder.emb_layer_norm")
}
