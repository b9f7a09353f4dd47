//! Sentence embeddings, trained to find each anchor's positive among all the texts of a batch: multiple negatives
//! ranking (Henderson et al. 2017, section 4.4), as sentence-transformers 6 computes it.
//!
//! Texts come column by column in one tensor: all anchors, all positives, then the negatives. Loss and scores are those
//! of cosines, so that embeddings are scaled to length 1 here whatever the model does with them later.

use super::builder::{AttentionForm, Builder};
use super::config::ModelConfig;
use super::loss::hits;
use super::parameters::{Parameter, encoder_parameters};
use super::pooling::{Pooling, SentenceHead, embed_texts, normalize};
use super::pretraining::{ATTENTION_MASK, INPUT_IDS};
use super::single_stream::{Encoded, encode};
use super::task::{CORRECT, LOGITS, LossGraph, Task, TwoStreams};
use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};
use crate::ops::cross_entropy::CrossEntropy;
use crate::ops::matmul::MatMul;

/// Input: which candidates count for which anchor, i64 `[B, (C − 1)·B]`, 1 where they do. A text that is an anchor's
/// positive, or the anchor itself, is no negative of it wherever else it stands in the batch.
pub const CANDIDATES: &str = "candidates";
/// Output of an evaluation: the embeddings of all texts, of length 1, `[C·B, E]`.
pub const EMBEDDINGS: &str = "sentence_embedding";

/// The score of a candidate that does not count: it vanishes beside every other.
const BLOCKED: f64 = -3e4;

/// Ranking of a batch's texts, as a task: of B rows with C texts each, an anchor, its positive and negatives.
#[derive(Debug, Clone, PartialEq)]
pub struct Ranking {
    pub model: ModelConfig,
    /// How hidden states become one vector.
    pub pooling: Vec<Pooling>,
    /// Texts of a row, C: 2 or more.
    pub columns: usize,
    /// What cosines are multiplied by: the inverse of the temperature.
    pub scale: f32,
    /// Whether positives are to find their anchors, too: the loss is the mean of both.
    pub symmetric: bool,
    /// Widths of embeddings, each the first so many of their columns: the loss is the sum of those of all widths
    /// (Kusupati et al. 2022). The whole embedding where there are none.
    pub matryoshka: Vec<usize>,
}

impl Task for Ranking {
    fn parameters(&self) -> Vec<Parameter> {
        encoder_parameters(&self.model)
    }

    fn symbols(&self) -> &'static [Symbol] {
        &[Symbol::BATCH, Symbol::LENGTH]
    }

    fn two_streams(&self) -> Option<TwoStreams> {
        Some(TwoStreams {
            head_dim: self.model.head_dim(),
            positions: self.model.max_positions,
        })
    }

    fn loss(&self, training: bool, attention: AttentionForm) -> Result<LossGraph, GraphError> {
        if self.columns < 2 {
            return Err(GraphError::Description(
                "ranking takes an anchor and a positive, and any number of negatives".to_owned(),
            ));
        }
        let rows = Dim::from(Symbol::BATCH);
        let texts = Dim::from(self.columns) * rows.clone();
        let mut b = Builder::of(&self.model, encoder_parameters, training)?;
        let ty = Type::new(DType::I64, [texts.clone(), Symbol::LENGTH.into()]);
        let input_ids = b.graph.input(INPUT_IDS, ty.clone());
        let attention_mask = b.graph.input(ATTENTION_MASK, ty);
        let ty = Type::new(DType::I64, [rows.clone(), texts.clone() - rows.clone()]);
        let candidates = b.graph.input(CANDIDATES, ty);

        let keep = b.graph.cast(attention_mask, DType::Bool)?; // [C·B, L]
        let Encoded {
            hidden,
            checkpoints,
        } = encode(&mut b, input_ids, keep, attention)?;
        let head = SentenceHead {
            pooling: self.pooling.clone(),
            steps: Vec::new(),
        };
        let pooled = embed_texts(&mut b, hidden, keep, &head)?; // [C·B, E]
        let embeddings = normalize(&mut b, pooled)?;
        let scores = self.scores(&mut b, embeddings, candidates, &texts)?; // [B, (C − 1)·B]
        let targets = b.graph.iota(rows)?;
        let whole = self.model.encoder_embed_dim * self.pooling.len();
        let widths = match self.matryoshka.as_slice() {
            [] => &[whole],
            widths => widths,
        };
        let mut sum: Option<ValueId> = None;
        for &width in widths {
            let scores = if width == whole {
                scores
            } else {
                let part = b.graph.slice(pooled, 1, Dim::from(0), width.into())?;
                let part = normalize(&mut b, part)?;
                self.scores(&mut b, part, candidates, &texts)?
            };
            let loss = self.entropy(&mut b, scores, targets)?;
            sum = Some(match sum {
                Some(sum) => b.graph.add(sum, loss)?,
                None => loss,
            });
        }
        let loss_sum =
            sum.ok_or_else(|| GraphError::Description("no width is trained".to_owned()))?;
        let best = b.graph.argmax(scores)?; // [B]
        let correct = hits(&mut b.graph, best, targets)?;
        Ok(LossGraph {
            graph: b.graph,
            loss_sum,
            figures: vec![(CORRECT, correct)],
            evaluated: vec![(EMBEDDINGS, embeddings)],
            exposed: vec![(LOGITS, scores)],
            sites: b.sites,
            checkpoints,
        })
    }
}

impl Ranking {
    /// The loss of `scores` `[B, (C − 1)·B]` whose best are to be `targets`, summed over the rows.
    fn entropy(
        &self,
        b: &mut Builder,
        scores: ValueId,
        targets: ValueId,
    ) -> Result<ValueId, GraphError> {
        let forward = cross_entropy(b, scores, targets)?;
        if !self.symmetric {
            return Ok(forward);
        }
        let rows = Dim::from(Symbol::BATCH);
        let positives = b.graph.slice(scores, 1, Dim::from(0), rows)?; // [B, B]
        let turned = b.graph.transpose(positives, &[1, 0])?;
        let back = cross_entropy(b, turned, targets)?;
        let both = b.graph.add(forward, back)?;
        let half = b.graph.scalar(0.5)?;
        b.graph.mul(both, half)
    }

    /// The score of every candidate for every anchor, `[B, (C − 1)·B]`.
    fn scores(
        &self,
        b: &mut Builder,
        embeddings: ValueId,
        candidates: ValueId,
        texts: &Dim,
    ) -> Result<ValueId, GraphError> {
        let rows = Dim::from(Symbol::BATCH);
        let graph = &mut b.graph;
        let anchors = graph.slice(embeddings, 0, Dim::from(0), rows.clone())?; // [B, E]
        let others = graph.slice(embeddings, 0, rows, texts.clone())?; // [(C − 1)·B, E]
        let scaled = MatMul {
            trans_b: true,
            alpha: self.scale,
            ..MatMul::default()
        };
        let scores = graph.matmul(anchors, others, scaled)?;
        let counts = graph.cast(candidates, DType::Bool)?;
        let blocked = graph.scalar(BLOCKED)?;
        graph.where_select(counts, scores, blocked)
    }
}

/// Summed cross entropy of `scores` `[B, K]` against `targets` i64 `[B]`.
fn cross_entropy(
    b: &mut Builder,
    scores: ValueId,
    targets: ValueId,
) -> Result<ValueId, GraphError> {
    let none = CrossEntropy { ignore_index: -1 };
    b.graph.apply1(none, &[scores, targets])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Array, Bindings, interpret};
    use crate::model::testing::tiny;
    use std::collections::HashMap;

    const SIZES: Bindings = Bindings::new([(Symbol::BATCH, 3), (Symbol::LENGTH, 5)]);

    fn ranking(columns: usize) -> Ranking {
        Ranking {
            model: ModelConfig {
                objective: super::super::Objective::Mpnet,
                ..tiny()
            },
            pooling: vec![Pooling::Mean],
            columns,
            scale: 20.0,
            symmetric: columns == 2,
            matryoshka: Vec::new(),
        }
    }

    /// Three rows of texts of other lengths, of which all candidates count.
    fn feeds(task: &Ranking, graph: &crate::ops::Graph) -> HashMap<String, Array> {
        let mut feeds = crate::ir::testing::random_feeds(graph, &SIZES, 14, 3);
        let texts = 3 * task.columns;
        let mut mask = ndarray::Array2::<f64>::ones((texts, 5));
        for (text, mut row) in mask.rows_mut().into_iter().enumerate() {
            row.iter_mut().skip(2 + text % 4).for_each(|x| *x = 0.0);
        }
        feeds.insert(ATTENTION_MASK.to_owned(), mask.into_dyn());
        feeds.insert(CANDIDATES.to_owned(), Array::ones(&[3, texts - 3][..]));
        feeds
    }

    fn evaluated(
        task: &Ranking,
        feeds: &dyn Fn(&mut HashMap<String, Array>),
    ) -> HashMap<String, Array> {
        let model = task.loss(false, AttentionForm::Expanded).unwrap();
        let mut graph = model.graph;
        graph.output("loss", model.loss_sum);
        let shown = model.evaluated.iter().chain(&model.exposed);
        for (name, value) in model.figures.iter().chain(shown) {
            graph.output(*name, *value);
        }
        let mut all = self::feeds(task, &graph);
        feeds(&mut all);
        let values = interpret(&graph, &SIZES, &all).unwrap();
        let names = graph.outputs().iter().map(|(name, _)| name.clone());
        names.zip(values).collect()
    }

    /// By hand from the embeddings, as the formula has it.
    #[test]
    fn the_loss_is_that_of_cosines() {
        for columns in [2, 3] {
            let task = ranking(columns);
            let found = evaluated(&task, &|_| ());
            let e = &found[EMBEDDINGS];
            let cosine = |a: usize, c: usize| -> f64 {
                (0..8).map(|d| e[[a, d]] * e[[c, d]]).sum::<f64>() * 20.0
            };
            let entropy = |scores: Vec<f64>, target: usize| {
                scores.iter().map(|s| s.exp()).sum::<f64>().ln() - scores[target]
            };
            let mut expected = 0.0;
            for row in 0..3 {
                let forward = entropy((3..3 * columns).map(|c| cosine(row, c)).collect(), row);
                let back = entropy((0..3).map(|a| cosine(a, 3 + row)).collect(), row);
                expected += match columns {
                    2 => (forward + back) / 2.0,
                    _ => forward,
                };
            }
            let difference = (found["loss"].sum() - expected).abs();
            assert!(difference < 1e-9, "{columns} columns: {difference}");
        }
    }

    #[test]
    fn what_does_not_count_changes_nothing() {
        let task = ranking(3);
        let block = |feeds: &mut HashMap<String, Array>| {
            feeds.get_mut(CANDIDATES).unwrap()[[0, 1]] = 0.0;
        };
        let found = evaluated(&task, &block);
        let scores = &found[LOGITS];
        assert_eq!(scores[[0, 1]], BLOCKED);
        let sum = |row: usize| {
            let counted = (0..6).filter(|k| (row, *k) != (0, 1));
            counted.map(|k| scores[[row, k]].exp()).sum::<f64>().ln() - scores[[row, row]]
        };
        let expected: f64 = (0..3).map(sum).sum();
        assert!((found["loss"].sum() - expected).abs() < 1e-9);
    }

    #[test]
    fn a_row_of_one_text_is_refused() {
        let refused = ranking(1).loss(false, AttentionForm::Expanded);
        assert!(refused.is_err());
    }
}
