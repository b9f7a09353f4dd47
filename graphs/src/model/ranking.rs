//! Multiple negatives ranking (Henderson et al. 2017, section 4.4), as sentence-transformers 6 computes it: each anchor
//! is to find its positive among all the texts of a batch.

use super::loss::{Judged, cross_entropy, hits};
use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};
use crate::ops::Graph;
use crate::ops::matmul::MatMul;

/// Input: which candidates count for which anchor, i64 `[B, (C − 1)·B]`, 1 where they do. A text that is an anchor's
/// positive, or the anchor itself, is no negative of it wherever else it stands in the batch.
pub const CANDIDATES: &str = "candidates";

/// The score of a candidate that does not count: it vanishes beside every other.
pub(super) const BLOCKED: f64 = -3e4;

/// Ranking of a batch's texts, of B rows with an anchor, its positive and negatives, C in all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Ranking {
    /// What cosines are multiplied by: the inverse of the temperature.
    pub scale: f32,
    /// Whether positives are to find their anchors, too: the loss is the mean of both.
    pub symmetric: bool,
}

impl Ranking {
    /// Adds the input [`CANDIDATES`] for rows of `columns` texts.
    pub(super) fn input(&self, graph: &mut Graph, columns: usize) -> ValueId {
        let rows = Dim::from(Symbol::BATCH);
        let others = Dim::from(columns) * rows.clone() - rows.clone();
        graph.input(CANDIDATES, Type::new(DType::I64, [rows, others]))
    }

    /// The loss of embeddings `[C·B, E]` of length 1, all anchors first.
    pub(super) fn judge(
        &self,
        graph: &mut Graph,
        embeddings: ValueId,
        candidates: ValueId,
    ) -> Result<Judged, GraphError> {
        let scores = self.scores(graph, embeddings, candidates)?; // [B, (C − 1)·B]
        let targets = graph.iota(Symbol::BATCH.into())?;
        let best = graph.argmax(scores)?; // [B]
        Ok(Judged {
            loss_sum: self.entropy(graph, scores, targets)?,
            correct: hits(graph, best, targets)?,
            scores,
        })
    }

    /// The loss of `scores` `[B, (C − 1)·B]` whose best are to be `targets`, summed over the rows.
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
        let rows = Dim::from(Symbol::BATCH);
        let positives = graph.slice(scores, 1, Dim::from(0), rows)?; // [B, B]
        let turned = graph.transpose(positives, &[1, 0])?;
        let back = cross_entropy(graph, turned, targets)?;
        let both = graph.add(forward, back)?;
        let half = graph.scalar(0.5)?;
        graph.mul(both, half)
    }

    /// The score of every candidate for every anchor, `[B, (C − 1)·B]`.
    fn scores(
        &self,
        graph: &mut Graph,
        embeddings: ValueId,
        candidates: ValueId,
    ) -> Result<ValueId, GraphError> {
        let rows = Dim::from(Symbol::BATCH);
        let texts = graph.ty(embeddings).shape[0].clone();
        let anchors = graph.slice(embeddings, 0, Dim::from(0), rows.clone())?; // [B, E]
        let others = graph.slice(embeddings, 0, rows, texts)?; // [(C − 1)·B, E]
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
