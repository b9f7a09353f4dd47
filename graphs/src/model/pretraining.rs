//! Two-stream pretraining and its evaluation, and the single-stream encoder with the LM head.

use super::attention::Scores;
use super::builder::{AttentionForm, Builder, DropoutSite};
use super::config::ModelConfig;
use super::layer::{Rows, final_norm, layer};
use super::lm_head::lm_head;
use super::loss::loss_and_correct;
use super::relative_bias::{bias_by_distance, relative_bias};
use super::streams::{Sizes, block, visibility};
use super::{embeddings::embed, streams};
use crate::ir::{DType, Dim, Graph, GraphError, Symbol, Type, ValueId};

/// Inputs of the two-stream graphs, in order, before the dropout masks.
pub const INPUT_IDS: &str = "input_ids";
pub const POSITIONS: &str = "positions";
pub const TARGETS: &str = "targets";
pub const ATTENTION_MASK: &str = "attention_mask";

/// A graph that computes the loss of one batch.
pub struct Pretraining {
    pub graph: Graph,
    /// Summed cross entropy in nats, `[]`.
    pub loss_sum: ValueId,
    /// Number of correct predictions as a float, `[]`.
    pub correct: ValueId,
    /// `[B·P, V]`
    pub logits: ValueId,
    pub sites: Vec<DropoutSite>,
}

/// Builds the two-stream graph over `input_ids`, `positions` and `attention_mask`, i64 `[B, L+2P]`,
/// and `targets`, i64 `[B, P]`; with `training`, dropout masks are further inputs.
///
/// # Errors
/// Where the configuration is not valid.
pub fn pretraining(config: &ModelConfig, training: bool) -> Result<Pretraining, GraphError> {
    pretraining_with(config, training, AttentionForm::Expanded)
}

/// [`pretraining`] with attention in the form asked for.
///
/// # Errors
/// Where the configuration is not valid.
pub fn pretraining_with(
    config: &ModelConfig,
    training: bool,
    attention: AttentionForm,
) -> Result<Pretraining, GraphError> {
    let sizes = Sizes::new();
    let mut b = Builder::new(config, training)?;
    let batch = Type::new(DType::I64, [sizes.b.clone(), sizes.q.clone()]);
    let input_ids = b.graph.input(INPUT_IDS, batch.clone());
    let positions = b.graph.input(POSITIONS, batch.clone());
    let targets = Type::new(DType::I64, [sizes.b.clone(), sizes.p.clone()]);
    let targets = b.graph.input(TARGETS, targets);
    let attention_mask = b.graph.input(ATTENTION_MASK, batch);

    let keep = b.graph.cast(attention_mask, DType::Bool)?; // [B, Q]
    let x = embed_rows(&mut b, input_ids, positions, keep)?; // [Q, B, D]

    let prefix = |b: &mut Builder, x: ValueId| b.graph.slice(x, 1, Dim::from(0), sizes.s.clone());
    let key_positions = prefix(&mut b, positions)?; // [B, S]
    let key_keep = prefix(&mut b, keep)?; // [B, S]
    // Of all rows, and of the last layer's.
    let (all_scores, last_scores) = match attention {
        AttentionForm::Fused => {
            let scores = Scores::Fused {
                positions,
                keep: key_keep,
                bias: bias_by_distance(&mut b)?,
            };
            (scores, scores)
        }
        AttentionForm::Expanded => {
            let bias = relative_bias(&mut b, positions, key_positions)?; // [B, H, Q, S]
            let visible = visibility(&mut b, &sizes)?; // [Q, S]
            let bias = block(&mut b, bias, Some(visible), key_keep)?;
            let of_queries = b.graph.slice(bias, 2, sizes.s.clone(), sizes.q.clone())?;
            (Scores::Added(bias), Scores::Added(of_queries)) // [B, H, P, S]
        }
    };
    let last = config.encoder_layers - 1;
    let mut x = x;
    for index in 0..config.encoder_layers {
        // Nobody reads the last layer's content rows.
        let (start, scores) = if index == last {
            (sizes.s.clone(), last_scores)
        } else {
            (Dim::from(0), all_scores)
        };
        let rows = Rows {
            content: sizes.s.clone(),
            start,
            end: sizes.q.clone(),
        };
        x = layer(&mut b, index, x, &rows, scores)?;
    }
    let x = final_norm(&mut b, x)?; // [P, B, D]
    let x = b.graph.transpose(x, &[1, 0, 2])?;
    let x = b.graph.flatten_rows(x)?; // [B·P, D]
    let logits = lm_head(&mut b, x)?;
    let count = sizes.b.clone() * sizes.p.clone();
    let targets = b.graph.reshape(targets, [count])?;
    let (loss_sum, correct) = loss_and_correct(&mut b, logits, targets)?;
    Ok(Pretraining {
        graph: b.graph,
        loss_sum,
        correct,
        logits,
        sites: b.sites,
    })
}

/// Embeddings of a batch's `[B, R]` inputs as `[R, B, D]`.
fn embed_rows(
    b: &mut Builder,
    input_ids: ValueId,
    positions: ValueId,
    keep: ValueId,
) -> Result<ValueId, GraphError> {
    let input_ids = b.graph.transpose(input_ids, &[1, 0])?;
    let positions = b.graph.transpose(positions, &[1, 0])?;
    let keep = b.graph.transpose(keep, &[1, 0])?;
    embed(b, input_ids, positions, keep)
}

/// The single-stream encoder over `input_ids` and `attention_mask`, i64 `[B, L]`, at positions
/// 0, 1, …: outputs `last_hidden_state` `[B, L, D]` and, from the LM head, `logits` `[B, L, V]`.
///
/// # Errors
/// Where the configuration is not valid.
pub fn masked_lm(config: &ModelConfig) -> Result<Graph, GraphError> {
    let (rows, length) = (Dim::from(Symbol::Batch), Dim::from(Symbol::Length));
    let mut b = Builder::new(config, false)?;
    let ty = Type::new(DType::I64, [rows.clone(), length.clone()]);
    let input_ids = b.graph.input(INPUT_IDS, ty.clone());
    let attention_mask = b.graph.input(ATTENTION_MASK, ty.clone());
    let keep = b.graph.cast(attention_mask, DType::Bool)?;
    let positions = b.graph.iota(length.clone())?;
    let positions = b.graph.expand(positions, ty.shape)?; // [B, L]
    let x = embed_rows(&mut b, input_ids, positions, keep)?; // [L, B, D]
    let bias = relative_bias(&mut b, positions, positions)?; // [B, H, L, L]
    let bias = streams::block(&mut b, bias, None, keep)?;
    let mut x = x;
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
    b.graph.output("last_hidden_state", x);
    let flat = b.graph.flatten_rows(x)?;
    let logits = lm_head(&mut b, flat)?;
    let logits = b
        .graph
        .reshape(logits, [rows, length, config.padded_vocab_size.into()])?;
    b.graph.output("logits", logits);
    Ok(b.graph)
}
