//! Losses of pairs of texts with a score of how near they are, as sentence-transformers 6 computes them.

use super::loss::{Judged, cross_entropy};
use super::ranking::BLOCKED;
use crate::ir::{DType, Dim, GraphError, Symbol, Type, ValueId};
use crate::ops::Graph;

/// Input: the score of each pair, f32 `[B]`.
pub const SCORES: &str = "scores";

/// How cosines are compared with scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scored {
    /// Of any two pairs the one of the higher score is to have the higher cosine: the logarithm of one plus the sum of
    /// `exp(scale · difference)` over all pairs of pairs (Huang et al. 2024). A batch's loss counts once for each row.
    CoSent {
        /// What cosines are multiplied by.
        scale: f32,
    },
    /// The cosine is to be the score: the square of their difference.
    Cosine,
}

impl Scored {
    /// Adds the input [`SCORES`].
    pub(super) fn input(&self, graph: &mut Graph) -> ValueId {
        graph.input(SCORES, Type::f32([Symbol::BATCH.into()]))
    }

    /// The loss of embeddings `[2·B, E]` of length 1, all first texts before all second ones. Right is a row whose cosine
    /// stands right to those of the other rows, in parts where it does to some.
    pub(super) fn judge(
        &self,
        graph: &mut Graph,
        embeddings: ValueId,
        scores: ValueId,
    ) -> Result<Judged, GraphError> {
        let rows = Dim::from(Symbol::BATCH);
        let first = graph.slice(embeddings, 0, Dim::from(0), rows.clone())?;
        let second = graph.slice(embeddings, 0, rows.clone(), rows.clone() + rows)?;
        let product = graph.mul(first, second)?;
        let cosines = graph.reduce_sum(product, &[1], false)?; // [B]
        let order = Order::new(graph, cosines, scores)?;
        let loss_sum = match self {
            Scored::CoSent { scale } => order.loss(graph, *scale)?,
            Scored::Cosine => {
                let error = graph.sub(cosines, scores)?;
                let square = graph.mul(error, error)?;
                graph.reduce_sum(square, &[0], false)?
            }
        };
        Ok(Judged {
            loss_sum,
            objective: None,
            correct: order.correct(graph)?,
            scores: cosines,
        })
    }
}

/// All pairs of pairs, by the row of the one and the column of the other.
struct Order {
    /// By how much the cosine of the row's is above that of the column's, `[B, B]`.
    above: ValueId,
    /// Whether its score is below, so that its cosine should be, too, `[B, B]`.
    below: ValueId,
    /// B as a float without dimensions.
    rows: ValueId,
}

impl Order {
    fn new(graph: &mut Graph, cosines: ValueId, scores: ValueId) -> Result<Order, GraphError> {
        let rows = Dim::from(Symbol::BATCH);
        let mut turned = |x: ValueId| -> Result<[ValueId; 2], GraphError> {
            let down = graph.reshape(x, [rows.clone(), 1.into()])?;
            Ok([down, graph.reshape(x, [1.into(), rows.clone()])?])
        };
        let [cosine, other_cosine] = turned(cosines)?;
        let [score, other_score] = turned(scores)?;
        let one = graph.scalar(1.0)?;
        let ones = graph.expand(one, [rows])?;
        Ok(Order {
            above: graph.sub(cosine, other_cosine)?,
            below: graph.less(score, other_score)?,
            rows: graph.reduce_sum(ones, &[0], false)?,
        })
    }

    /// The logarithm of one plus the sum of the exponentials, once for each row: the cross entropy of a row of logits of
    /// which the first, 0, is the right one.
    fn loss(&self, graph: &mut Graph, scale: f32) -> Result<ValueId, GraphError> {
        let rows = Dim::from(Symbol::BATCH);
        let scaled = graph.scale(self.above, scale.into())?;
        let blocked = graph.scalar(BLOCKED)?;
        let differences = graph.where_select(self.below, scaled, blocked)?;
        let differences = graph.reshape(differences, [1.into(), rows.clone() * rows])?;
        let zero = graph.scalar(0.0)?;
        let zero = graph.reshape(zero, [1.into(), 1.into()])?;
        let logits = graph.concat(1, &[zero, differences])?; // [1, 1 + B·B]
        let first = graph.index(0)?;
        let first = graph.reshape(first, [1.into()])?;
        let loss = cross_entropy(graph, logits, first)?;
        graph.mul(loss, self.rows)
    }

    /// The share of the pairs that come in the order of their scores, times B; all where no two scores differ.
    fn correct(&self, graph: &mut Graph) -> Result<ValueId, GraphError> {
        let zero = graph.scalar(0.0)?;
        let lower = graph.less(self.above, zero)?;
        let right = graph.and(self.below, lower)?;
        let mut count = |which: ValueId| -> Result<ValueId, GraphError> {
            let which = graph.cast(which, DType::F32)?;
            graph.reduce_sum(which, &[0, 1], false)
        };
        let (right, all) = (count(right)?, count(self.below)?);
        let one = graph.scalar(1.0)?;
        let none = graph.less(all, one)?;
        let none = graph.cast(none, DType::F32)?;
        let (right, all) = (graph.add(right, none)?, graph.add(all, none)?);
        let share = graph.div(right, all)?;
        graph.mul(share, self.rows)
    }
}
