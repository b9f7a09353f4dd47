//! Pretraining and its evaluation under every objective.

use super::attention::Scores;
use super::builder::{AttentionForm, Builder};
use super::config::ModelConfig;
use super::embeddings::embed;
use super::layer::{Stack, layers};
use super::lm_head::lm_head;
use super::loss::{correct, loss};
use super::objective::Objective;
use super::parameters::{Parameter, parameters};
use super::relative_bias::{bias_by_distance, relative_bias};
use super::streams::{Sizes, block, visibility};
use super::task::{CORRECT, LOGITS, LossGraph, Task, TwoStreams};
use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};

/// Inputs of the pretraining graphs, in order, before the dropout masks.
pub const INPUT_IDS: &str = "input_ids";
pub const POSITIONS: &str = "positions";
pub const TARGETS: &str = "targets";
pub const ATTENTION_MASK: &str = "attention_mask";

/// Pretraining under the configuration's objective.
impl Task for ModelConfig {
    fn parameters(&self) -> Vec<Parameter> {
        parameters(self)
    }

    fn symbols(&self) -> &'static [Symbol] {
        &[Symbol::BATCH, Symbol::LENGTH, Symbol::PREDICTED]
    }

    fn two_streams(&self) -> Option<TwoStreams> {
        match self.objective {
            Objective::Mpnet => Some(TwoStreams::of(self)),
            Objective::MpnetMlm | Objective::Plm | Objective::Mlm => None,
        }
    }

    fn loss(&self, training: bool, attention: AttentionForm) -> Result<LossGraph, GraphError> {
        pretraining(self, training, attention)
    }
}

/// Builds the graph of `config`'s objective over `input_ids`, `positions` and `attention_mask`, i64
/// `[B, Q]`, and `targets`, i64 `[B, P]`; with `training`, dropout masks are further inputs. The logits
/// `[B·P, V]` are those of the predicted tokens; of the queries where the loss is a joint one.
///
/// # Errors
/// Where the configuration is not valid.
pub fn pretraining(
    config: &ModelConfig,
    training: bool,
    attention: AttentionForm,
) -> Result<LossGraph, GraphError> {
    let sizes = Sizes::new(config.objective);
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
            let visible = match config.objective {
                Objective::Mpnet | Objective::MpnetMlm | Objective::Plm => {
                    Some(visibility(&mut b, &sizes)?) // [Q, S]
                }
                Objective::Mlm => None,
            };
            let bias = block(&mut b, bias, visible, key_keep)?;
            let (start, end) = (sizes.read.clone(), sizes.q.clone());
            let of_read = b.graph.slice(bias, 2, start, end)?;
            (Scores::Added(bias), Scores::Added(of_read)) // [B, H, Q − read, S]
        }
    };
    let stack = Stack {
        content: sizes.s.clone(),
        read: sizes.read.clone(),
        rows: sizes.q.clone(),
    };
    let (x, checkpoints) = layers(&mut b, x, &stack, [all_scores, last_scores])?; // [Q − read, B, D]
    let x = b.graph.transpose(x, &[1, 0, 2])?;
    let x = b.graph.flatten_rows(x)?; // [B·(Q − read), D]
    let logits = lm_head(&mut b, x)?;
    let figures = figures(&mut b, &sizes, logits, targets)?;
    Ok(LossGraph {
        graph: b.graph,
        loss_sum: figures.loss_sum,
        objective: None,
        figures: vec![(CORRECT, figures.correct)],
        stepped: Vec::new(),
        evaluated: Vec::new(),
        exposed: vec![(LOGITS, figures.logits)],
        sites: b.sites,
        checkpoints,
    })
}

struct Figures {
    loss_sum: ValueId,
    correct: ValueId,
    logits: ValueId,
}

/// Loss and correct predictions of `logits` `[B·(Q − read), V]` against `targets` `[B, P]`.
fn figures(
    b: &mut Builder,
    sizes: &Sizes,
    logits: ValueId,
    targets: ValueId,
) -> Result<Figures, GraphError> {
    let p = &sizes.p;
    let flat = |b: &mut Builder, x: ValueId, count: Dim| b.graph.reshape(x, [count]);
    let count = sizes.b.clone() * p.clone();
    match b.config.objective {
        Objective::Mpnet | Objective::Plm | Objective::Mlm => {
            let targets = flat(b, targets, count)?;
            Ok(Figures {
                loss_sum: loss(b, logits, targets)?,
                correct: {
                    let best = b.graph.argmax(logits)?; // [B·P]
                    correct(b, best, targets)?
                },
                logits,
            })
        }
        // Of every row first the P masks, then the P queries: one loss for both, but the queries alone
        // count as predictions.
        Objective::MpnetMlm => {
            let both = b.graph.concat(1, &[targets, targets])?; // [B, 2P]
            let both = flat(b, both, count.clone() + count.clone())?;
            let loss_sum = loss(b, logits, both)?;
            let twice = p.clone() + p.clone();
            let best = b.graph.argmax(logits)?;
            let best = b.graph.reshape(best, [sizes.b.clone(), twice.clone()])?;
            let best = b.graph.slice(best, 1, p.clone(), twice.clone())?; // [B, P]
            let best = flat(b, best, count.clone())?;
            let targets = flat(b, targets, count.clone())?;
            let correct = correct(b, best, targets)?;
            let vocabulary = Dim::from(b.config.padded_vocab_size);
            let split = [sizes.b.clone(), twice.clone(), vocabulary.clone()];
            let queries = b.graph.reshape(logits, split)?; // [B, 2P, V]
            let queries = b.graph.slice(queries, 1, p.clone(), twice)?; // [B, P, V]
            Ok(Figures {
                loss_sum,
                correct,
                logits: b.graph.reshape(queries, [count, vocabulary])?,
            })
        }
    }
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
