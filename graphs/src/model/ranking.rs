//! Multiple negatives ranking (Henderson et al. 2017, section 4.4), as sentence-transformers 6 computes it: each anchor
//! is to find its positive among all the texts of a batch.

use super::loss::{Judged, cross_entropy, hits};
use crate::ir::{DType, Dim, GraphError, Type, ValueId};
use crate::ops::Graph;
use crate::ops::matmul::MatMul;

/// Input: which candidates count for which anchor, i64 `[R, (C − 1)·R]` of R rows, 1 where they do. A text that is an anchor's
/// positive, or the anchor itself, is no negative of it wherever else it stands in the batch.
pub const CANDIDATES: &str = "candidates";

/// The score of a candidate that does not count: it vanishes beside every other.
pub(super) const BLOCKED: f64 = -3e4;

/// Ranking of a batch's texts, of R rows with an anchor, its positive and negatives, C in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking {
    /// What cosines are multiplied by: the inverse of the temperature.
    pub scale: f32,
    /// Whether positives are to find their anchors, too: the loss is the mean of both.
    pub symmetric: bool,
}

impl Ranking {
    /// Adds the input [`CANDIDATES`] for `rows` of `columns` texts.
    pub(super) fn input(graph: &mut Graph, rows: Dim, columns: usize) -> ValueId {
        let others = Dim::from(columns) * rows.clone() - rows.clone();
        graph.input(CANDIDATES, Type::new(DType::I64, [rows, others]))
    }

    /// The loss of embeddings `[C·R, E]` of length 1, all anchors first. Where `own` i64 `[R]` says which rows count, the
    /// number of the row where it does and else −1, that of all of them is the objective.
    pub(super) fn judge(
        &self,
        graph: &mut Graph,
        embeddings: ValueId,
        candidates: ValueId,
        own: Option<ValueId>,
    ) -> Result<Judged, GraphError> {
        let scores = self.scores(graph, embeddings, candidates)?; // [R, (C − 1)·R]
        let rows = graph.ty(scores).shape[0].clone();
        let targets = graph.iota(rows)?;
        let counted = own.unwrap_or(targets);
        let best = graph.argmax(scores)?; // [R]
        let objective = match own {
            Some(_) => Some(self.entropy(graph, scores, targets)?),
            None => None,
        };
        Ok(Judged {
            loss_sum: self.entropy(graph, scores, counted)?,
            objective,
            correct: hits(graph, best, counted)?,
            scores,
        })
    }

    /// The loss of `scores` `[R, (C − 1)·R]` whose best are to be `targets`, summed over the rows that have one.
    fn entropy(
        &self,
        graph: &mut Graph,
        scores: ValueId,
        targets: ValueId,
    ) -> Result<ValueId, GraphError> {
        let forward = cross_entropy(graph, scores, targets)?;
        if !self.symmetric {
            return Ok(forward);
        }
        let rows = graph.ty(scores).shape[0].clone();
        let positives = graph.slice(scores, 1, Dim::from(0), rows)?; // [R, R]
        let turned = graph.transpose(positives, &[1, 0])?;
        let back = cross_entropy(graph, turned, targets)?;
        let both = graph.add(forward, back)?;
        let half = graph.scalar(0.5)?;
        graph.mul(both, half)
    }

    /// The score of every candidate for every anchor, `[R, (C − 1)·R]`.
    fn scores(
        &self,
        graph: &mut Graph,
        embeddings: ValueId,
        candidates: ValueId,
    ) -> Result<ValueId, GraphError> {
        let rows = graph.ty(candidates).shape[0].clone();
        let texts = graph.ty(embeddings).shape[0].clone();
        let anchors = graph.slice(embeddings, 0, Dim::from(0), rows.clone())?; // [R, E]
        let others = graph.slice(embeddings, 0, rows, texts)?; // [(C − 1)·R, E]
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
