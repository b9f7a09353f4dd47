//! What may see what: the visibility rule of two-stream attention.
//!
//! Content rows are the permuted row (L) and, in MPNet's own objective, the masked copies of its last
//! P tokens; query rows are the same P masked copies again (MPNet, section 2.3, figure 2).
//!
//! Hidden states are sequence first, `[R, B, D]`, R = S + P rows: content, then queries, both in
//! one tensor, as every operator but attention works row by row. Cutting off the last P rows, or
//! the first S, is then a contiguous slice, and heads `[R, B, H, d]` enter matrix products
//! through `FusedMatMul`'s batch transposition without a copy. The last layer computes the P
//! query rows alone.
//!
//! The rule is one comparison with a limit per row, not a table of cases.

use super::builder::Builder;
use super::objective::Objective;
use crate::ir::{Dim, GraphError, Symbol, ValueId};
use crate::ops::Graph;

/// The rows of a batch under an objective.
pub(super) struct Sizes {
    pub b: Dim,
    /// Content rows, S: L, and P masked copies where the content has them.
    pub s: Dim,
    /// All rows, Q: S, and P queries where there is a second stream.
    pub q: Dim,
    pub p: Dim,
    /// Tokens that are not predicted, L − P.
    pub left: Dim,
    /// The first of the rows whose output is read; all up to Q are.
    pub read: Dim,
    /// Whether masked copies are among the content.
    masks: bool,
}

impl Sizes {
    pub(super) fn new(objective: Objective) -> Sizes {
        let (l, p) = (Dim::from(Symbol::LENGTH), Dim::from(Symbol::PREDICTED));
        let left = l.clone() - p.clone();
        let with_masks = l.clone() + p.clone();
        let (s, q, read, masks) = match objective {
            Objective::Mpnet => {
                let q = with_masks.clone() + p.clone();
                (with_masks.clone(), q, with_masks, true)
            }
            // The masks among the content stand right before the queries.
            Objective::MpnetMlm => {
                let q = with_masks.clone() + p.clone();
                (with_masks, q, l, true)
            }
            Objective::Plm => (l.clone(), with_masks, l, false),
            Objective::Mlm => (l.clone(), l, left.clone(), false),
        };
        Sizes {
            b: Symbol::BATCH.into(),
            s,
            q,
            p,
            left,
            read,
            masks,
        }
    }
}

/// Whether each row of two streams may see each content key, bool `[Q, S]`.
///
/// Every row has a limit u: it sees the predicted tokens j < u and the masked copies j ≥ u. u is 0
/// for the tokens that are not predicted and for the masked copies, i + 1 for predicted token i,
/// and i for query i.
pub(super) fn visibility(b: &mut Builder, sizes: &Sizes) -> Result<ValueId, GraphError> {
    let graph = &mut b.graph;
    let zero = graph.index(0)?;
    let one = graph.index(1)?;
    let length = Dim::from(Symbol::LENGTH);

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
    let limit = match sizes.masks {
        true => graph.where_select(masked_on, zero, limit)?,
        false => limit,
    };
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
    let above = graph.where_select(key_after_left, predicted_j, minus_one)?; // [S]
    if !sizes.masks {
        return graph.less(above, limit); // [Q, S]
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Bindings, DType, Type, interpret};
    use crate::model::testing::tiny;
    use std::collections::HashMap;

    /// What a row or key is, after its place in the permuted row and the masked copies.
    #[derive(Clone, Copy)]
    enum Role {
        Left,
        Predicted(usize),
        Mask(usize),
        Query(usize),
    }

    /// The tables of who sees whom, cell by cell.
    fn sees(row: Role, key: Role) -> bool {
        match (row, key) {
            (_, Role::Query(_)) => unreachable!("queries are no keys"),
            (_, Role::Left) => true,
            (Role::Left | Role::Mask(_), Role::Predicted(_)) => false,
            (Role::Left | Role::Mask(_), Role::Mask(_)) => true,
            (Role::Predicted(i), Role::Predicted(j)) => j <= i,
            (Role::Predicted(i), Role::Mask(j)) => j > i,
            (Role::Query(i), Role::Predicted(j)) => j < i,
            (Role::Query(i), Role::Mask(j)) => j >= i,
        }
    }

    fn role(index: usize, length: usize, predicted: usize, masks: usize) -> Role {
        match index {
            i if i < length - predicted => Role::Left,
            i if i < length => Role::Predicted(i + predicted - length),
            i if i < length + masks => Role::Mask(i - length),
            i => Role::Query(i - length - masks),
        }
    }

    #[test]
    fn rows_see_what_the_tables_say() -> Result<(), GraphError> {
        for objective in [Objective::Mpnet, Objective::MpnetMlm, Objective::Plm] {
            let config = tiny();
            let mut b = Builder::new(&config, false)?;
            let sizes = Sizes::new(objective);
            let visible = visibility(&mut b, &sizes)?;
            let [q, s] = [sizes.q, sizes.s];
            assert_eq!(*b.graph.ty(visible), Type::new(DType::Bool, [q, s]));
            let mut graph = b.graph;
            graph.parameters.clear();
            graph.output("visible", visible);
            for (length, predicted) in [(2, 1), (5, 1), (6, 2), (9, 4), (8, 7)] {
                let bindings = Bindings::new([
                    (Symbol::BATCH, 1),
                    (Symbol::LENGTH, length),
                    (Symbol::PREDICTED, predicted),
                ]);
                let found = interpret(&graph, &bindings, &HashMap::new())?.remove(0);
                let masks = predicted * (objective.copies() - 1);
                for ((row, key), seen) in found
                    .into_dimensionality::<ndarray::Ix2>()
                    .expect("a matrix")
                    .indexed_iter()
                {
                    let at = |index| role(index, length, predicted, masks);
                    let expected = f64::from(u8::from(sees(at(row), at(key))));
                    assert_eq!(
                        *seen, expected,
                        "{objective:?}, L {length}, P {predicted}: row {row}, key {key}"
                    );
                }
            }
        }
        Ok(())
    }

    #[test]
    fn padding_and_invisible_keys_are_blocked() -> Result<(), GraphError> {
        let config = tiny();
        let mut b = Builder::new(&config, false)?;
        b.graph.parameters.clear();
        let constant = |b: &mut Builder, dtype, shape: &[usize], values: &[f64]| {
            b.graph.constant(dtype, shape, values.iter().copied())
        };
        let bias = constant(
            &mut b,
            DType::F32,
            &[1, 1, 2, 3],
            &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
        )?;
        let visible = constant(
            &mut b,
            DType::Bool,
            &[2, 3],
            &[1.0, 1.0, 0.0, 1.0, 0.0, 1.0],
        )?;
        let keep = constant(&mut b, DType::Bool, &[1, 3], &[0.0, 1.0, 1.0])?;
        let both = block(&mut b, bias, Some(visible), keep)?;
        let padding = block(&mut b, bias, None, keep)?;
        b.graph.output("both", both);
        b.graph.output("padding", padding);
        let bindings = Bindings::new([
            (Symbol::BATCH, 1),
            (Symbol::LENGTH, 1),
            (Symbol::PREDICTED, 1),
        ]);
        let found = interpret(&b.graph, &bindings, &HashMap::new())?;
        let values: Vec<Vec<f64>> = found.into_iter().map(|a| a.into_iter().collect()).collect();
        let no = f64::NEG_INFINITY;
        assert_eq!(values[0], [no, 2.0, no, no, no, 6.0]);
        assert_eq!(values[1], [no, 2.0, 3.0, no, 5.0, 6.0]);
        Ok(())
    }
}
