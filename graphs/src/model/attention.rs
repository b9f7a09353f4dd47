//! Multi-head attention with relative position bias.

use super::builder::Builder;
use crate::ir::{Dim, GraphError, ValueId};
use crate::ops::concat::Split;
use crate::ops::dropping::Dropping;
use crate::ops::matmul::MatMul;
use crate::ops::two_stream_attention::TwoStreamAttention;

/// What is added to the scores, and who sees whom.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scores {
    /// Both in one tensor `[B, H, R, S]`, −∞ where a row may not see a key.
    Added(ValueId),
    /// The same over rows `[B, R, D]` and content `[B, S, D]`: texts first, as other programs have them.
    TextsFirst(ValueId),
    /// Positions i64 `[B, Q]`, the mask of keys bool `[B, S]` and the bias `[H, 2M − 1]` by distance,
    /// for one operator, which knows the rule.
    Fused {
        positions: ValueId,
        keep: ValueId,
        bias: ValueId,
    },
}

/// Attention of `rows` `[R, B, D]` over `content` `[S, B, D]` with `scores`, or with texts first
/// ([`Scores::TextsFirst`]); `layer` names the parameters. Returns what has the shape of `rows`.
pub(super) fn attend(
    b: &mut Builder,
    layer: &str,
    site: &str,
    rows: ValueId,
    content: ValueId,
    scores: Scores,
) -> Result<ValueId, GraphError> {
    let d = b.config.encoder_embed_dim;
    let weight = b.parameter(&format!("{layer}.self_attn.in_proj_weight"))?;
    let in_bias = b.parameter(&format!("{layer}.self_attn.in_proj_bias"))?;
    let thirds = Split {
        axis: 0,
        sizes: vec![d; 3],
    };
    let weights = b.graph.apply(thirds.clone(), &[weight])?; // 3 × [D, D]
    let biases = b.graph.apply(thirds, &[in_bias])?; // 3 × [D]
    let mut project = |x: ValueId, i: usize| {
        let y = b.graph.linear(x, weights[i])?;
        let y = b.graph.add(y, biases[i])?;
        match scores {
            Scores::Added(_) => heads(b, y, ROWS_FIRST),
            Scores::TextsFirst(_) => heads(b, y, TEXTS_FIRST),
            Scores::Fused { .. } => Ok(y),
        }
    };
    let projected = [
        project(rows, 0)?,    // [R, B, D] or [B, H, R, d]
        project(content, 1)?, // [S, B, D] or [B, H, S, d]
        project(content, 2)?, // as the keys
    ];
    let context = match scores {
        Scores::Added(bias) => {
            let context = expanded(b, site, projected, bias)?; // [B, H, R, d]
            let context = b.graph.transpose(context, &[2, 0, 1, 3])?; // [R, B, H, d]
            let shape = b.graph.ty(rows).shape.clone();
            b.graph.reshape(context, shape)?
        }
        Scores::TextsFirst(bias) => {
            let context = expanded(b, site, projected, bias)?; // [B, H, R, d]
            let context = b.graph.transpose(context, &[0, 2, 1, 3])?; // [B, R, H, d]
            let shape = b.graph.ty(rows).shape.clone();
            b.graph.reshape(context, shape)?
        }
        Scores::Fused {
            positions,
            keep,
            bias,
        } => fused(b, site, projected, [positions, keep, bias])?,
    };
    b.linear(context, &format!("{layer}.self_attn.out_proj"))
}

/// The context `[R, B, D]` by one operator.
fn fused(
    b: &mut Builder,
    site: &str,
    [query, key, value]: [ValueId; 3],
    [positions, keep, bias]: [ValueId; 3],
) -> Result<ValueId, GraphError> {
    let rows = |v: ValueId| b.graph.ty(v).shape.clone();
    let (of_queries, of_keys) = (rows(query), rows(key));
    let mask = [
        of_queries[1].clone(),
        b.config.encoder_attention_heads.into(),
        of_queries[0].clone(),
        of_keys[0].clone(),
    ];
    let ratio = b.config.attention_dropout;
    let mask = b.dropout_mask(&mask, ratio, &format!("{site}.attention"));
    let op = TwoStreamAttention {
        scale: (b.config.head_dim() as f32).powf(-0.5),
        ratio,
        dropping: match mask {
            Some(_) => Dropping::Mask,
            None => Dropping::Nothing,
        },
    };
    let mut inputs = vec![query, key, value, positions, keep, bias];
    inputs.extend(mask);
    Ok(b.graph.apply(op, &inputs)?[0])
}

/// The context `[B, H, R, d]` by ordinary operators.
fn expanded(
    b: &mut Builder,
    site: &str,
    [query, key, value]: [ValueId; 3],
    bias: ValueId,
) -> Result<ValueId, GraphError> {
    let scaled = MatMul {
        trans_b: true,
        alpha: (b.config.head_dim() as f32).powf(-0.5),
        ..MatMul::default()
    };
    let scores = b.graph.matmul(query, key, scaled)?; // [B, H, R, S]
    let scores = b.graph.add(scores, bias)?;
    let probabilities = b.graph.softmax(scores)?;
    let ratio = b.config.attention_dropout;
    let probabilities = b.dropout(probabilities, ratio, &format!("{site}.attention"))?;
    b.graph.matmul(probabilities, value, MatMul::default())
}

/// From `[R, B, H, d]` to `[B, H, R, d]`.
const ROWS_FIRST: [usize; 4] = [1, 2, 0, 3];
/// From `[B, R, H, d]` to `[B, H, R, d]`.
const TEXTS_FIRST: [usize; 4] = [0, 2, 1, 3];

/// `[R, B, D]` or `[B, R, D]` as `[B, H, R, d]`, by the order `perm` of the axes.
fn heads(b: &mut Builder, x: ValueId, perm: [usize; 4]) -> Result<ValueId, GraphError> {
    let mut shape: Vec<Dim> = b.graph.ty(x).shape[..2].to_vec();
    shape.extend([
        b.config.encoder_attention_heads.into(),
        b.config.head_dim().into(),
    ]);
    let x = b.graph.reshape(x, shape)?; // [R, B, H, d] or [B, R, H, d]
    b.graph.transpose(x, &perm)
}
