//! The loss of triplets by Euclidean distance (Hermans et al. 2017), as sentence-transformers 6 computes it.

use super::loss::Judged;
use crate::ir::{DType, Dim, GraphError, Symbol, ValueId};
use crate::ops::Graph;

/// Square of the shortest distance: at 0 there is no direction to learn, and the root has no derivative.
const SHORTEST_SQUARE: f64 = 1e-12;

/// Each anchor is to be nearer to its positive than to its negative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Triplets {
    /// By how much, at least.
    pub margin: f32,
    /// Whether the model's embeddings are of length 1, or as they are pooled.
    pub normalized: bool,
}

impl Triplets {
    /// The loss of embeddings `[3·B, E]`: all anchors, all positives, all negatives.
    pub(super) fn judge(
        &self,
        graph: &mut Graph,
        embeddings: ValueId,
    ) -> Result<Judged, GraphError> {
        let near = distances(graph, embeddings, 1)?;
        let far = distances(graph, embeddings, 2)?;
        let margin = graph.scalar(self.margin.into())?;
        let excess = graph.sub(near, far)?; // [B]
        let lacking = graph.add(excess, margin)?;
        let losses = graph.relu(lacking)?;
        let right = graph.less(near, far)?;
        let right = graph.cast(right, DType::F32)?;
        Ok(Judged {
            loss_sum: graph.reduce_sum(losses, &[0], false)?,
            objective: None,
            correct: graph.reduce_sum(right, &[0], false)?,
            scores: excess,
        })
    }
}

/// The distance of each row's first text to that of `column`, `[B]`.
fn distances(graph: &mut Graph, embeddings: ValueId, column: usize) -> Result<ValueId, GraphError> {
    let rows = Dim::from(Symbol::BATCH);
    let start = Dim::from(column) * rows.clone();
    let anchors = graph.slice(embeddings, 0, Dim::from(0), rows.clone())?;
    let others = graph.slice(embeddings, 0, start.clone(), start + rows)?;
    let difference = graph.sub(anchors, others)?;
    let square = graph.mul(difference, difference)?;
    let square = graph.reduce_sum(square, &[1], false)?; // [B]
    let shortest = graph.scalar(SHORTEST_SQUARE)?;
    let short = graph.less(square, shortest)?;
    let short = graph.cast(short, DType::F32)?;
    let least = graph.mul(short, shortest)?;
    let square = graph.add(square, least)?;
    graph.sqrt(square)
}
