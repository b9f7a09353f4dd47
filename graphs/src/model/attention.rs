//! Multi-head attention with relative position bias.

use super::builder::Builder;
use crate::ir::{Dim, GraphError, ValueId};
use crate::ops::matmul::MatMul;
use crate::ops::split::Split;

/// Attention of `rows` `[R, B, D]` over `content` `[S, B, D]` with the additive `bias`
/// `[B, H, R, S]`; `layer` names the parameters. Returns `[R, B, D]`.
pub(super) fn attend(
    b: &mut Builder,
    layer: &str,
    site: &str,
    rows: ValueId,
    content: ValueId,
    bias: ValueId,
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
        heads(b, y)
    };
    let query = project(rows, 0)?; // [B, H, R, d]
    let key = project(content, 1)?; // [B, H, S, d]
    let value = project(content, 2)?; // [B, H, S, d]

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
    let context = b.graph.matmul(probabilities, value, MatMul::default())?; // [B, H, R, d]
    let context = b.graph.transpose(context, &[2, 0, 1, 3])?; // [R, B, H, d]
    let shape = b.graph.ty(rows).shape.clone();
    let context = b.graph.reshape(context, shape)?;
    b.linear(context, &format!("{layer}.self_attn.out_proj"))
}

/// `[R, B, D]` as `[B, H, R, d]`.
fn heads(b: &mut Builder, x: ValueId) -> Result<ValueId, GraphError> {
    let mut shape: Vec<Dim> = b.graph.ty(x).shape[..2].to_vec();
    shape.extend([
        b.config.encoder_attention_heads.into(),
        b.config.head_dim().into(),
    ]);
    let x = b.graph.reshape(x, shape)?; // [R, B, H, d]
    b.graph.transpose(x, &[1, 2, 0, 3])
}
