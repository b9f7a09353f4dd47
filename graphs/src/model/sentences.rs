//! Sentence embeddings as a task: texts in rows of several, and a loss over their embeddings.
//!
//! Texts come column by column in one tensor: all first ones, all second ones, and so on. Where the loss compares
//! directions, embeddings are scaled to length 1 here whatever the model does with them later.

use super::builder::{AttentionForm, Builder};
use super::config::ModelConfig;
use super::gathering::{Gathering, POOLED, WHOLE};
use super::loss::Judged;
use super::parameters::{Parameter, encoder_parameters};
use super::pooling::{Pooling, SentenceHead, embed_texts, normalize};
use super::pretraining::{ATTENTION_MASK, INPUT_IDS};
use super::ranking::Ranking;
use super::scored::Scored;
use super::single_stream::{Encoded, encode};
use super::task::{CORRECT, LOGITS, LossGraph, Task, TwoStreams};
use super::triplets::Triplets;
use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};
use crate::ops::Graph;

/// Output of an evaluation: the embeddings of all texts, of length 1, `[C·B, E]`.
pub const EMBEDDINGS: &str = "sentence_embedding";

/// Embeddings of texts, as a task: of B rows with C texts each.
#[derive(Debug, Clone, PartialEq)]
pub struct Sentences {
    pub model: ModelConfig,
    /// How hidden states become one vector.
    pub pooling: Vec<Pooling>,
    /// Texts of a row, C.
    pub columns: usize,
    pub loss: SentenceLoss,
    /// Widths of embeddings, each the first so many of their columns: the loss is the sum of those of all widths, of
    /// embeddings of length 1 (Kusupati et al. 2022). The whole embedding where there are none.
    pub matryoshka: Vec<usize>,
    /// Whether a batch is a part of another one, of which the embeddings are [given](super::gathering).
    pub gathered: bool,
}

/// What embeddings are trained for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SentenceLoss {
    /// Each anchor is to find its positive among all texts of the batch.
    Ranking(Ranking),
    /// Cosines of pairs are to follow their scores.
    Scored(Scored),
    /// Each anchor is to be nearer to its positive than to its negative.
    Triplets(Triplets),
}

impl SentenceLoss {
    /// Why rows of `columns` texts do not fit it, if they don't.
    pub fn refuses(&self, columns: usize) -> Option<String> {
        let (wanted, fits) = match self {
            SentenceLoss::Ranking(_) => (
                "an anchor and a positive, and any number of negatives",
                columns >= 2,
            ),
            SentenceLoss::Scored(_) => ("two texts and a score", columns == 2),
            SentenceLoss::Triplets(_) => ("an anchor, a positive and a negative", columns == 3),
        };
        (!fits).then(|| format!("takes {wanted}, not {columns} texts"))
    }
}

impl Task for Sentences {
    fn parameters(&self) -> Vec<Parameter> {
        encoder_parameters(&self.model)
    }

    fn symbols(&self) -> &'static [Symbol] {
        match self.gathered {
            true => &[Symbol::BATCH, Symbol::LENGTH, WHOLE],
            false => &[Symbol::BATCH, Symbol::LENGTH],
        }
    }

    fn two_streams(&self) -> Option<TwoStreams> {
        Some(TwoStreams::of(&self.model))
    }

    fn loss(&self, training: bool, attention: AttentionForm) -> Result<LossGraph, GraphError> {
        if let Some(reason) = self.loss.refuses(self.columns) {
            return Err(GraphError::Description(format!("the loss {reason}")));
        }
        let texts = Dim::from(self.columns) * Symbol::BATCH.into();
        let width = self.model.encoder_embed_dim * self.pooling.len();
        let mut b = Builder::of(&self.model, self.parameters(), training)?;
        let ty = Type::new(DType::I64, [texts, Symbol::LENGTH.into()]);
        let input_ids = b.graph.input(INPUT_IDS, ty.clone());
        let attention_mask = b.graph.input(ATTENTION_MASK, ty);
        let gathering =
            (self.gathered).then(|| Gathering::inputs(&mut b.graph, self.columns, width));
        let judge = self.judge(&mut b.graph, gathering.as_ref())?;

        let keep = b.graph.cast(attention_mask, DType::Bool)?; // [C·B, L]
        let Encoded {
            hidden,
            checkpoints,
        } = encode(&mut b, input_ids, keep, attention)?;
        let head = SentenceHead {
            pooling: self.pooling.clone(),
            steps: Vec::new(),
        };
        let own = embed_texts(&mut b, hidden, keep, &head)?; // [C·B, E]
        let graph = &mut b.graph;
        let pooled = match &gathering {
            Some(gathering) => gathering.whole(graph, own)?, // [C·G, E]
            None => own,
        };
        let directions = normalize(graph, pooled)?;
        let whole = judge(graph, Embeddings { pooled, directions })?;
        let mut sums = [Some(whole.loss_sum), whole.objective];
        if !self.matryoshka.is_empty() {
            sums = [None, None];
        }
        for &columns in &self.matryoshka {
            let part = if columns == width {
                directions
            } else {
                let part = graph.slice(pooled, 1, Dim::from(0), columns.into())?;
                normalize(graph, part)?
            };
            let part = Embeddings {
                pooled: part,
                directions: part,
            };
            let judged = judge(graph, part)?;
            for (sum, part) in sums
                .iter_mut()
                .zip([Some(judged.loss_sum), judged.objective])
            {
                *sum = match (*sum, part) {
                    (Some(sum), Some(part)) => Some(graph.add(sum, part)?),
                    (sum, part) => sum.or(part),
                };
            }
        }
        let [Some(loss_sum), objective] = sums else {
            return Err(GraphError::Description("no width is trained".to_owned()));
        };
        let embeddings = match self.gathered {
            true => normalize(graph, own)?,
            false => directions,
        };
        let mut evaluated = vec![(EMBEDDINGS, embeddings)];
        evaluated.extend(self.gathered.then_some((POOLED, own)));
        Ok(LossGraph {
            graph: b.graph,
            loss_sum,
            objective,
            figures: vec![(CORRECT, whole.correct)],
            stepped: Vec::from_iter(self.gathered.then_some((POOLED, own))),
            evaluated,
            exposed: vec![(LOGITS, whole.scores)],
            sites: b.sites,
            checkpoints,
        })
    }
}

/// Embeddings of a batch's texts, `[C·B, E]` each.
#[derive(Debug, Clone, Copy)]
struct Embeddings {
    /// As they are pooled.
    pooled: ValueId,
    /// Of length 1.
    directions: ValueId,
}

type Judge<'a> = Box<dyn Fn(&mut Graph, Embeddings) -> Result<Judged, GraphError> + 'a>;

impl Sentences {
    /// What judges embeddings; its own input is then among those of the graph.
    fn judge(
        &self,
        graph: &mut Graph,
        gathering: Option<&Gathering>,
    ) -> Result<Judge<'_>, GraphError> {
        Ok(match (&self.loss, gathering) {
            (SentenceLoss::Ranking(ranking), gathering) => {
                let rows = if gathering.is_some() {
                    WHOLE
                } else {
                    Symbol::BATCH
                };
                let candidates = Ranking::input(graph, rows.into(), self.columns);
                let own = gathering.map(|gathering| gathering.own_rows);
                Box::new(move |graph, of| ranking.judge(graph, of.directions, candidates, own))
            }
            (SentenceLoss::Scored(scored), None) => {
                let scores = scored.input(graph);
                Box::new(move |graph, of| scored.judge(graph, of.directions, scores))
            }
            (SentenceLoss::Triplets(triplets), None) => Box::new(|graph, of| {
                let embeddings = match triplets.normalized {
                    true => of.directions,
                    false => of.pooled,
                };
                triplets.judge(graph, embeddings)
            }),
            (SentenceLoss::Scored(_) | SentenceLoss::Triplets(_), Some(_)) => {
                return Err(GraphError::Description(
                    "only ranking compares a row's texts with those of other parts".to_owned(),
                ));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::ranking::{BLOCKED, CANDIDATES};
    use super::super::scored::SCORES;
    use super::*;
    use crate::ir::{Array, Bindings, interpret};
    use crate::model::testing::tiny;
    use std::collections::HashMap;

    const SIZES: Bindings = Bindings::new([(Symbol::BATCH, 3), (Symbol::LENGTH, 5)]);

    fn sentences(columns: usize, loss: SentenceLoss) -> Sentences {
        Sentences {
            model: ModelConfig {
                objective: super::super::Objective::Mpnet,
                ..tiny()
            },
            pooling: vec![Pooling::Mean],
            columns,
            loss,
            matryoshka: Vec::new(),
            gathered: false,
        }
    }

    fn ranking(columns: usize) -> Sentences {
        let ranking = Ranking {
            scale: 20.0,
            symmetric: columns == 2,
        };
        sentences(columns, SentenceLoss::Ranking(ranking))
    }

    /// Three rows of texts of other lengths, of which all candidates count.
    fn feeds(task: &Sentences, graph: &crate::ops::Graph) -> HashMap<String, Array> {
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
        task: &Sentences,
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

    /// By hand from the embeddings, as the formulas have it; of the scores two are equal.
    #[test]
    fn losses_of_scored_pairs() {
        let scores = [0.5, 0.0, 0.5];
        for (loss, scale) in [
            (Scored::CoSent { scale: 20.0 }, 20.0),
            (Scored::Cosine, 1.0),
        ] {
            let task = sentences(2, SentenceLoss::Scored(loss));
            let found = evaluated(&task, &|feeds| {
                feeds.insert(SCORES.to_owned(), ndarray::arr1(&scores).into_dyn());
            });
            let e = &found[EMBEDDINGS];
            let cosine =
                |row: usize| -> f64 { (0..8).map(|d| e[[row, d]] * e[[3 + row, d]]).sum() };
            let expected = match loss {
                Scored::CoSent { .. } => {
                    let wrong = |row: usize| (scale * (cosine(1) - cosine(row))).exp();
                    3.0 * (1.0 + wrong(0) + wrong(2)).ln()
                }
                Scored::Cosine => (0..3).map(|row| (cosine(row) - scores[row]).powi(2)).sum(),
            };
            let difference = (found["loss"].sum() - expected).abs();
            assert!(difference < 1e-9, "{loss:?}: {difference}");
            let right = [0, 2]
                .iter()
                .filter(|row| cosine(1) < cosine(**row))
                .count();
            assert_eq!(found[CORRECT].sum(), 3.0 * right as f64 / 2.0, "{loss:?}");
        }
    }

    #[test]
    fn pairs_of_one_score_are_in_order() {
        let task = sentences(2, SentenceLoss::Scored(Scored::CoSent { scale: 20.0 }));
        let found = evaluated(&task, &|feeds| {
            feeds.insert(SCORES.to_owned(), Array::ones(&[3][..]));
        });
        assert_eq!(found[CORRECT].sum(), 3.0);
        assert!(found["loss"].sum().abs() < 1e-9);
    }

    #[test]
    fn rows_that_do_not_fit_the_loss_are_refused() {
        let refused = |columns, loss| {
            let loss = sentences(columns, loss).loss(false, AttentionForm::Expanded);
            loss.map(|_| ()).unwrap_err().to_string()
        };
        let triplets = SentenceLoss::Triplets(Triplets {
            margin: 5.0,
            normalized: false,
        });
        assert!(refused(1, ranking(2).loss).contains("a positive"));
        assert!(refused(3, SentenceLoss::Scored(Scored::Cosine)).contains("not 3 texts"));
        assert!(refused(2, triplets).contains("not 2 texts"));
    }
}
