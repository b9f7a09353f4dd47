//! What may see what: the visibility rule of two-stream attention.
//!
//! Content rows are the permuted row (L) and the masked copies of its last P tokens; query rows are
//! the same P masked copies again (MPNet, section 2.3, figure 2).

use super::builder::Builder;
use crate::ir::{Dim, Graph, GraphError, Symbol, ValueId};

/// The sizes of a two-stream batch.
pub(super) struct Sizes {
    pub b: Dim,
    /// Content rows, S = L + P.
    pub s: Dim,
    /// All rows, Q = S + P.
    pub q: Dim,
    pub p: Dim,
    /// Tokens that are not predicted, L − P.
    pub left: Dim,
}

impl Sizes {
    pub(super) fn new() -> Sizes {
        let (l, p) = (Dim::from(Symbol::Length), Dim::from(Symbol::Predicted));
        let s = l.clone() + p.clone();
        Sizes {
            b: Symbol::Batch.into(),
            q: s.clone() + p.clone(),
            s,
            left: l - p.clone(),
            p,
        }
    }
}

/// Whether each row may see each content key, bool `[Q, S]`.
///
/// Every row has a limit u: it sees the predicted tokens j < u and the masked copies j ≥ u. u is 0
/// for the tokens that are not predicted and for the masked copies, i + 1 for predicted token i,
/// and i for query i.
pub(super) fn visibility(b: &mut Builder, sizes: &Sizes) -> Result<ValueId, GraphError> {
    let graph = &mut b.graph;
    let zero = graph.index(0)?;
    let one = graph.index(1)?;
    let length = Dim::from(Symbol::Length);

    let row = graph.iota(sizes.q.clone())?; // [Q]
    let left = last_index(graph, &sizes.left)?; // left − 1, so that ≥ left is > left − 1
    let content = last_index(graph, &length)?;
    let streams = last_index(graph, &sizes.s)?;

    // u = predicted ? row − left + 1 : query ? row − S : 0
    let from_left = graph.sub(row, left)?; // i + 1 in the predicted rows
    let after_left = graph.less(left, row)?;
    let masked_on = graph.less(content, row)?;
    let queries = graph.less(streams, row)?;
    let limit = graph.where_select(after_left, from_left, zero)?;
    let limit = graph.where_select(masked_on, zero, limit)?;
    let from_streams = graph.sub(row, streams)?;
    let query_limit = graph.sub(from_streams, one)?;
    let limit = graph.where_select(queries, query_limit, limit)?;
    let limit = graph.reshape(limit, [sizes.q.clone(), Dim::from(1)])?; // [Q, 1]

    let key = graph.iota(sizes.s.clone())?; // [S]
    let key_after_left = graph.less(left, key)?;
    let key_masked = graph.less(content, key)?;
    // Predicted key j is seen above limit j; all others from limit 0 on, which is above −1.
    let minus_one = graph.index(-1)?;
    let predicted_j = graph.sub(key, left)?;
    let predicted_j = graph.sub(predicted_j, one)?;
    let above = graph.where_select(key_after_left, predicted_j, minus_one)?;
    let above = graph.where_select(key_masked, minus_one, above)?; // [S]
    // Masked key j is seen up to limit j, so below j + 1; all others whatever the limit.
    let masked_j = graph.sub(key, content)?; // j + 1
    let unlimited = graph.index(i64::from(i32::MAX))?;
    let below = graph.where_select(key_masked, masked_j, unlimited)?; // [S]

    let lower = graph.less(above, limit)?; // [Q, S]
    let upper = graph.less(limit, below)?; // [Q, S]
    graph.and(lower, upper)
}

/// `dim − 1` as an i64 `[1]`.
fn last_index(graph: &mut Graph, dim: &Dim) -> Result<ValueId, GraphError> {
    let indices = graph.iota(dim.clone())?;
    graph.slice(indices, 0, dim.clone() - Dim::from(1), dim.clone())
}

/// `bias` `[B, H, R, S]` with −∞ where a row may not see a key: blocked by `visible` (bool
/// `[R, S]`, if any) or padding (`keep`, bool `[B, S]`).
pub(super) fn block(
    b: &mut Builder,
    bias: ValueId,
    visible: Option<ValueId>,
    keep: ValueId,
) -> Result<ValueId, GraphError> {
    let graph = &mut b.graph;
    let [batch, keys] = &graph.ty(keep).shape[..] else {
        return Err(GraphError::Invalid {
            stage: "the model's definition".to_owned(),
            reason: "the key mask is not [B, S]".to_owned(),
        });
    };
    let shape = [batch.clone(), 1.into(), 1.into(), keys.clone()];
    let keep = graph.reshape(keep, shape)?; // [B, 1, 1, S]
    let seen = match visible {
        Some(visible) => graph.and(keep, visible)?, // [B, 1, R, S]
        None => keep,
    };
    let blocked = graph.scalar(f64::NEG_INFINITY)?;
    graph.where_select(seen, bias, blocked)
}
