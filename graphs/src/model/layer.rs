//! One encoder layer: attention and feed-forward, each with residual and layer normalization.

use super::activation;
use super::attention::{Scores, attend};
use super::builder::Builder;
use crate::ir::{Dim, GraphError, ValueId};

/// Which rows a layer computes, and which of them are content.
pub(super) struct Rows {
    /// Keys and values come from the rows before this one.
    pub content: Dim,
    /// Rows to compute; the last layer of pretraining needs only the query rows.
    pub start: Dim,
    pub end: Dim,
}

/// Layer `index` over `x` `[rows, B, D]` with the `scores` of rows
/// `start` to `end`, R of them.
/// Returns `[R, B, D]`. With texts first ([`Scores::TextsFirst`]) it is `x` `[B, rows, D]`, and the ranges are those of
/// all texts.
pub(super) fn layer(
    b: &mut Builder,
    index: usize,
    x: ValueId,
    rows: &Rows,
    scores: Scores,
) -> Result<ValueId, GraphError> {
    let name = format!("sentence_encoder.layers.{index}");
    let site = format!("layers.{index}");
    let (pre, dropout) = (b.config.normalize_before, b.config.dropout);
    let norm = |b: &mut Builder, x: ValueId, which: &str, here: bool| {
        if here {
            b.layer_norm(x, &format!("{name}.{which}"))
        } else {
            Ok(x)
        }
    };

    let normal = norm(b, x, "self_attn_layer_norm", pre)?;
    let slice = |b: &mut Builder, x: ValueId, start: &Dim, end: &Dim| {
        b.graph.slice(x, 0, start.clone(), end.clone())
    };
    let content = slice(b, normal, &Dim::from(0), &rows.content)?; // [S, B, D]
    let queries = slice(b, normal, &rows.start, &rows.end)?; // [R, B, D]
    let residual = slice(b, x, &rows.start, &rows.end)?; // [R, B, D]
    let y = attend(b, &name, &site, queries, content, scores)?;
    let y = b.dropout(y, dropout, &format!("{site}.self_attn"))?;
    let x = b.graph.add(residual, y)?;
    let x = norm(b, x, "self_attn_layer_norm", !pre)?;

    let y = norm(b, x, "final_layer_norm", pre)?;
    let y = b.linear(y, &format!("{name}.fc1"))?; // [R, B, F]
    let y = activation::apply(&mut b.graph, b.config.activation_fn, y)?;
    let ratio = b.config.activation_dropout;
    let y = b.dropout(y, ratio, &format!("{site}.activation"))?;
    let y = b.linear(y, &format!("{name}.fc2"))?; // [R, B, D]
    let y = b.dropout(y, dropout, &format!("{site}.fc2"))?;
    let x = b.graph.add(x, y)?;
    norm(b, x, "final_layer_norm", !pre)
}

/// Which rows of a batch the layers work on.
pub(super) struct Stack {
    /// Keys and values come from the rows before this one.
    pub content: Dim,
    /// The first of the rows that the last layer computes: nobody reads its others.
    pub read: Dim,
    /// All rows.
    pub rows: Dim,
}

/// All layers over `x` `[rows, B, D]` with the `scores` of all rows and of those that are read. Returns
/// `[rows − read, B, D]`, and what each layer reads, from the first on.
pub(super) fn layers(
    b: &mut Builder,
    mut x: ValueId,
    stack: &Stack,
    [all, read]: [Scores; 2],
) -> Result<(ValueId, Vec<ValueId>), GraphError> {
    let last = b.config.encoder_layers - 1;
    let mut checkpoints = Vec::new();
    for index in 0..b.config.encoder_layers {
        checkpoints.push(x);
        let (start, scores) = if index == last {
            (stack.read.clone(), read)
        } else {
            (Dim::from(0), all)
        };
        let rows = Rows {
            content: stack.content.clone(),
            start,
            end: stack.rows.clone(),
        };
        x = layer(b, index, x, &rows, scores)?;
    }
    Ok((final_norm(b, x)?, checkpoints))
}

/// The encoder's output normalization, which only pre-LN models have.
pub(super) fn final_norm(b: &mut Builder, x: ValueId) -> Result<ValueId, GraphError> {
    if b.config.normalize_before {
        b.layer_norm(x, "sentence_encoder.final_layer_norm")
    } else {
        Ok(x)
    }
}
