//! Embeddings of whole texts from an encoder's hidden states, as sentence-transformers computes them.

use super::activation::apply;
use super::builder::Builder;
use super::config::Activation;
use crate::ir::{DType, Dim, GraphError, Type, ValueId};
use crate::ops::Graph;
use crate::ops::matmul::MatMul;

/// Shortest length that an embedding is divided by, as in PyTorch's `normalize`.
const SHORTEST: f64 = 1e-12;
/// What hidden states of padding become before the largest is taken; in range for f16.
const LOWEST: f64 = -3e4;

/// How the hidden states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The largest of each element.
    Max,
    /// The mean.
    Mean,
    /// The sum over the square root of their number.
    MeanSqrtLen,
    /// The mean with weights 1, 2, 3, …
    WeightedMean,
    /// The last token's.
    LastToken,
}

/// What is done with the pooled vector.
#[derive(Debug, Clone, PartialEq)]
pub enum PoolingStep {
    /// Divided by its length.
    Normalize,
    /// A linear layer and its activation.
    Dense(Dense),
}

/// A linear layer, with the parameters `<name>.weight` `[outputs, inputs]` and, where it has a bias,
/// `<name>.bias` `[outputs]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dense {
    pub name: String,
    pub inputs: usize,
    pub outputs: usize,
    pub bias: bool,
    pub activation: Activation,
}

/// From hidden states to the embedding of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct SentenceHead {
    /// One vector for each, one after another.
    pub pooling: Vec<Pooling>,
    /// In their order.
    pub steps: Vec<PoolingStep>,
}

/// The embeddings `[B, E]` of the hidden states `x` `[B, L, D]` of the tokens that `keep` (bool `[B, L]`)
/// names.
///
/// # Errors
/// Where a layer does not fit what comes before it.
pub(super) fn embed_texts(
    b: &mut Builder,
    x: ValueId,
    keep: ValueId,
    head: &SentenceHead,
) -> Result<ValueId, GraphError> {
    let mut parts = Vec::new();
    for pooling in &head.pooling {
        parts.push(pool(b, x, keep, *pooling)?);
    }
    let mut embedding = match parts[..] {
        [only] => only,
        _ => b.graph.concat(1, &parts)?,
    };
    for step in &head.steps {
        embedding = match step {
            PoolingStep::Normalize => normalize(&mut b.graph, embedding)?,
            PoolingStep::Dense(dense) => linear(b, embedding, dense)?,
        };
    }
    Ok(embedding)
}

/// B, L and D of hidden states.
fn sizes(b: &Builder, x: ValueId) -> Result<[Dim; 3], GraphError> {
    <[Dim; 3]>::try_from(b.graph.ty(x).shape.clone()).map_err(|shape| {
        GraphError::Description(format!(
            "hidden states have {} dimensions, not 3",
            shape.len()
        ))
    })
}

/// The vectors `[B, D]` of one way of pooling.
fn pool(
    b: &mut Builder,
    x: ValueId,
    keep: ValueId,
    pooling: Pooling,
) -> Result<ValueId, GraphError> {
    let [rows, length, width] = sizes(b, x)?;
    let graph = &mut b.graph;
    let one = graph.scalar(1.0)?;
    let number = graph.cast(keep, DType::F32)?; // [B, L]
    let weights = match pooling {
        Pooling::Cls => {
            let first = graph.slice(x, 1, 0.into(), 1.into())?;
            return graph.reshape(first, [rows, width]);
        }
        Pooling::Max => return largest(b, x, keep),
        Pooling::Mean | Pooling::MeanSqrtLen => number,
        Pooling::WeightedMean => {
            let places = graph.iota(length.clone())?;
            let places = graph.cast(places, DType::F32)?;
            let places = graph.add(places, one)?; // [L]
            graph.mul(number, places)?
        }
        Pooling::LastToken => {
            // The one at which the running count of tokens reaches their number.
            let counted = graph.cast(keep, DType::I64)?;
            let count = graph.cumsum(counted)?;
            let all = graph.reduce_sum(counted, &[1], true)?;
            let full = graph.equal(count, all)?;
            let last = graph.and(full, keep)?;
            graph.cast(last, DType::F32)?
        }
    };
    let total = graph.reduce_sum(weights, &[1], true)?; // [B, 1]
    // A row without tokens has a sum of 0.
    let empty = graph.less(total, one)?;
    let empty = graph.cast(empty, DType::F32)?;
    let total = graph.add(total, empty)?;
    let weights = graph.reshape(weights, [rows.clone(), 1.into(), length])?; // [B, 1, L]
    let sum = graph.matmul(weights, x, MatMul::default())?; // [B, 1, D]
    let sum = graph.reshape(sum, [rows, width])?;
    let divisor = match pooling {
        Pooling::MeanSqrtLen => graph.sqrt(total)?,
        Pooling::Cls
        | Pooling::Max
        | Pooling::Mean
        | Pooling::WeightedMean
        | Pooling::LastToken => total,
    };
    graph.div(sum, divisor)
}

/// The largest of each element over the tokens: of one-hot choices, as the sum over tokens needs no
/// operator beside those that the models have.
fn largest(b: &mut Builder, x: ValueId, keep: ValueId) -> Result<ValueId, GraphError> {
    let [rows, length, width] = sizes(b, x)?;
    let graph = &mut b.graph;
    let keep = graph.cast(keep, DType::F32)?;
    let keep = graph.reshape(keep, [rows.clone(), length.clone(), 1.into()])?;
    let (one, lowest) = (graph.scalar(1.0)?, graph.scalar(LOWEST)?);
    let hidden = graph.sub(one, keep)?;
    let hidden = graph.mul(hidden, lowest)?;
    let x = graph.mul(x, keep)?;
    let x = graph.add(x, hidden)?; // [B, L, D]
    let x = graph.transpose(x, &[0, 2, 1])?; // [B, D, L]
    let best = graph.argmax(x)?; // [B, D]
    let best = graph.reshape(best, [rows, width, 1.into()])?;
    let places = graph.iota(length)?; // [L]
    let chosen = graph.equal(best, places)?; // [B, D, L]
    let chosen = graph.cast(chosen, DType::F32)?;
    let x = graph.mul(x, chosen)?;
    graph.reduce_sum(x, &[2], false)
}

/// `x` `[B, E]` with rows of length 1.
pub(super) fn normalize(graph: &mut Graph, x: ValueId) -> Result<ValueId, GraphError> {
    let square = graph.mul(x, x)?;
    let norm = graph.reduce_sum(square, &[1], true)?;
    let norm = graph.sqrt(norm)?; // [B, 1]
    let shortest = graph.scalar(SHORTEST)?;
    let short = graph.less(norm, shortest)?;
    let short = graph.cast(short, DType::F32)?;
    let least = graph.mul(short, shortest)?;
    // A row of zeros has a norm of 0; one that is shorter than the shortest by a little gets up to twice it.
    let norm = graph.add(norm, least)?;
    graph.div(x, norm)
}

/// A linear layer over `x` `[B, E]`.
fn linear(b: &mut Builder, x: ValueId, dense: &Dense) -> Result<ValueId, GraphError> {
    let ty = Type::f32([Dim::from(dense.outputs), Dim::from(dense.inputs)]);
    let weight = b.graph.parameter(format!("{}.weight", dense.name), ty);
    let mut y = b.graph.linear(x, weight)?;
    if dense.bias {
        let ty = Type::f32([Dim::from(dense.outputs)]);
        let bias = b.graph.parameter(format!("{}.bias", dense.name), ty);
        y = b.graph.add(y, bias)?;
    }
    apply(&mut b.graph, dense.activation, y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Array, Bindings, Symbol, interpret};
    use crate::model::config::ModelConfig;
    use crate::model::testing::tiny;
    use std::collections::HashMap;

    /// The embeddings that `head` makes of two rows of three tokens, the second with one of padding.
    fn embeddings(head: &SentenceHead, feeds: &[(&str, Array)]) -> Array {
        let config = ModelConfig {
            encoder_embed_dim: 2,
            encoder_attention_heads: 1,
            ..tiny()
        };
        let mut b = Builder::new(&config, false).unwrap();
        let (rows, length) = (Dim::from(Symbol::BATCH), Dim::from(Symbol::LENGTH));
        let ty = Type::f32([rows.clone(), length.clone(), Dim::from(2)]);
        let x = b.graph.input("x", ty);
        let mask = b.graph.input("mask", Type::new(DType::I64, [rows, length]));
        let keep = b.graph.cast(mask, DType::Bool).unwrap();
        let embedding = embed_texts(&mut b, x, keep, head).unwrap();
        b.graph.output("embedding", embedding);
        let mut values: HashMap<String, Array> = HashMap::from([
            (
                "x".to_owned(),
                ndarray::arr3(&[
                    [[1.0, -4.0], [3.0, -5.0], [2.0, -6.0]],
                    [[-1.0, 8.0], [5.0, 0.0], [100.0, 100.0]],
                ])
                .into_dyn(),
            ),
            (
                "mask".to_owned(),
                ndarray::arr2(&[[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]).into_dyn(),
            ),
        ]);
        values.extend(feeds.iter().map(|(n, v)| ((*n).to_owned(), v.clone())));
        // The encoder's parameters are read by nobody here.
        for id in b.graph.parameters().to_vec() {
            let name = b.graph.label(id);
            let shape: Vec<usize> = b
                .graph
                .ty(id)
                .shape
                .iter()
                .filter_map(|d| d.as_const())
                .collect();
            values.entry(name).or_insert_with(|| Array::zeros(shape));
        }
        let sizes = Bindings::new([(Symbol::BATCH, 2), (Symbol::LENGTH, 3)]);
        interpret(&b.graph, &sizes, &values).unwrap().remove(0)
    }

    fn assert_close(found: &Array, expected: [&[f64]; 2]) {
        let rows: Vec<f64> = expected.concat();
        assert_eq!(found.shape(), [2, expected[0].len()]);
        for (a, b) in found.iter().zip(rows) {
            assert!((a - b).abs() < 1e-9, "{found} for {expected:?}");
        }
    }

    /// By hand, from sentence-transformers' documentation of the modes.
    #[test]
    fn every_way_of_pooling() {
        let root = |n: f64| n.sqrt();
        let cases: [(Pooling, [[f64; 2]; 2]); 6] = [
            (Pooling::Cls, [[1.0, -4.0], [-1.0, 8.0]]),
            (Pooling::Max, [[3.0, -4.0], [5.0, 8.0]]),
            (Pooling::Mean, [[2.0, -5.0], [2.0, 4.0]]),
            (
                Pooling::MeanSqrtLen,
                [
                    [6.0 / root(3.0), -15.0 / root(3.0)],
                    [4.0 / root(2.0), 8.0 / root(2.0)],
                ],
            ),
            (
                Pooling::WeightedMean,
                [[13.0 / 6.0, -32.0 / 6.0], [3.0, 8.0 / 3.0]],
            ),
            (Pooling::LastToken, [[2.0, -6.0], [5.0, 0.0]]),
        ];
        for (pooling, [first, second]) in &cases {
            let head = SentenceHead {
                pooling: vec![*pooling],
                steps: Vec::new(),
            };
            assert_close(&embeddings(&head, &[]), [first, second]);
        }
        let both = SentenceHead {
            pooling: vec![Pooling::Max, Pooling::Cls],
            steps: Vec::new(),
        };
        let expected: [&[f64]; 2] = [&[3.0, -4.0, 1.0, -4.0], &[5.0, 8.0, -1.0, 8.0]];
        assert_close(&embeddings(&both, &[]), expected);
    }

    #[test]
    fn layers_and_lengths_come_in_their_order() {
        let dense = Dense {
            name: "d".to_owned(),
            inputs: 2,
            outputs: 1,
            bias: true,
            activation: Activation::Relu,
        };
        let head = SentenceHead {
            pooling: vec![Pooling::Cls],
            steps: vec![PoolingStep::Normalize, PoolingStep::Dense(dense)],
        };
        let feeds = [
            ("d.weight", ndarray::arr2(&[[2.0, 1.0]]).into_dyn()),
            ("d.bias", ndarray::arr1(&[0.5]).into_dyn()),
        ];
        // (1, −4) / √17 and (−1, 8) / √65.
        let expected = [
            (0.5 - 2.0 / 17f64.sqrt()).max(0.0),
            0.5 + 6.0 / 65f64.sqrt(),
        ];
        assert_close(&embeddings(&head, &feeds), [&expected[..1], &expected[1..]]);
    }
}
