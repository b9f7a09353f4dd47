//! Mixed precision: matrix products and what lies between them in 16 bits; the residual stream that
//! the layers add to, the loss, and everything that sums over a batch's rows into a table in f32.
//!
//! A stream in 16 bits would be rounded twice in each layer, and these errors add up over the depth to
//! most of what the gradients differ by. A number that a whole row of scores is shifted by keeps f32's
//! precision too, as its error is the same for the whole row. Parameters stay f32 and are converted where they are read; so
//! do the graph's outputs. Softmax and sums read and write 16 bits but compute in f32 inside their
//! kernels.

use crate::ir::{DType, Graph, GraphError, Node, ValueId};
use crate::ops::residual_norm_grad::Gradients;
use crate::ops::{Op, cast::Cast};
use std::collections::{HashMap, HashSet};

/// How an operator takes its floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// In 16 bits, whatever they come in: what makes activations.
    Low,
    /// In f32, whatever they come in.
    Full,
    /// In f32, whatever they come in: what starts the stream anew.
    Stream,
    /// A kernel of ours, in 16 bits but for these inputs, which are f32 in every precision: the stream,
    /// vectors, tables and sums.
    Mixed(&'static [usize]),
    /// In f32 where one of them is the stream, which the sum becomes; else as `Follow`.
    Join,
    /// In f32 where they are the stream, which the result stays; else as `Follow`.
    Move,
    /// In 16 bits where any of them is, or is the stream.
    Follow,
}

fn class(op: &Op) -> Class {
    match op {
        Op::MatMul(_) | Op::Gather(_) | Op::Split(_) => Class::Low,
        Op::Accumulate(_)
        | Op::AdamWUpdate(_)
        | Op::ArgMax(_)
        | Op::CrossEntropy(_)
        | Op::CrossEntropyGrad(_)
        | Op::CumSum(_)
        | Op::Equal(_)
        | Op::Less(_)
        | Op::ScatterAdd(_)
        | Op::ScatterElements(_)
        | Op::SumSquares(_) => Class::Full,
        Op::TwoStreamAttention(_) => Class::Mixed(&[5]),
        Op::TwoStreamAttentionGrad(_) => Class::Mixed(&[2, 8]),
        Op::PackedAttention(_) => Class::Mixed(&[3]),
        Op::PackedAttentionGrad(_) => Class::Mixed(&[2, 6]),
        Op::ResidualNorm(_) => Class::Mixed(&[0, 2, 3, 4]),
        Op::ResidualNormGrad(op) => match op.gradients {
            Gradients::Normal => Class::Mixed(&[0, 2, 3, 4]),
            Gradients::Copy => Class::Mixed(&[2, 3, 4]),
            Gradients::Both => Class::Mixed(&[0, 3, 4, 5]),
        },
        Op::NormalizedAgain(_) => Class::Mixed(&[1, 2, 3, 4]),
        Op::BiasGelu(_) => Class::Mixed(&[1]),
        Op::BiasGeluGrad(_) => Class::Mixed(&[2]),
        Op::BiasCrossEntropy(_) => Class::Mixed(&[1]),
        Op::BiasCrossEntropyGrad(_) => Class::Mixed(&[0, 2, 4]),
        Op::LayerNorm(_) | Op::LayerNormGrad(_) | Op::LayerNormOutput(_) => Class::Stream,
        Op::Add(_) => Class::Join,
        Op::Concat(_)
        | Op::Expand(_)
        | Op::Pad(_)
        | Op::Reshape(_)
        | Op::Slice(_)
        | Op::Transpose(_)
        | Op::Where(_) => Class::Move,
        Op::And(_)
        | Op::Cast(_)
        | Op::Constant(_)
        | Op::Div(_)
        | Op::Dropout(_)
        | Op::Erf(_)
        | Op::Exp(_)
        | Op::FactorDropout(_)
        | Op::Gelu(_)
        | Op::GeluGrad(_)
        | Op::Iota(_)
        | Op::Mul(_)
        | Op::ReduceSum(_)
        | Op::Relu(_)
        | Op::ReluGrad(_)
        | Op::Sigmoid(_)
        | Op::Softmax(_)
        | Op::SoftmaxGrad(_)
        | Op::Sqrt(_)
        | Op::Sub(_)
        | Op::Tanh(_)
        | Op::WrappingMul(_) => Class::Follow,
    }
}

/// Whether the first output of a kernel of ours is the stream or its gradient.
fn gives_stream(op: &Op) -> bool {
    matches!(op, Op::ResidualNorm(_) | Op::ResidualNormGrad(_))
}

/// Rewrites an f32 graph to work in `low` wherever that is safe.
///
/// # Errors
/// Where the result would not be a graph.
pub fn lower_precision(graph: &mut Graph, low: DType) -> Result<(), GraphError> {
    let mut casts = HashMap::new();
    let mut stream = HashSet::new();
    let shifts = row_sums(graph);
    for mut node in std::mem::take(&mut graph.nodes) {
        let is_float = |v: &ValueId| graph.ty(*v).dtype.is_float();
        let floats: Vec<bool> = node.inputs.iter().map(is_float).collect();
        let inputs = || node.inputs.iter().filter(|v| is_float(v));
        let any_stream = inputs().any(|v| stream.contains(v));
        let class = match node.outputs.iter().any(|v| shifts.contains(v)) {
            true => Class::Full,
            false => class(&node.op),
        };
        let in_stream = match class {
            Class::Low | Class::Full | Class::Mixed(_) | Class::Follow => false,
            Class::Stream => true,
            Class::Join => any_stream,
            Class::Move => any_stream && inputs().all(|v| stream.contains(v)),
        };
        let wanted = match class {
            Class::Low | Class::Mixed(_) => low,
            Class::Full => DType::F32,
            Class::Stream | Class::Join | Class::Move | Class::Follow => {
                let any_low = inputs().any(|v| graph.ty(*v).dtype == low);
                match !in_stream && (any_stream || any_low) {
                    true => low,
                    false => DType::F32,
                }
            }
        };
        if let (Op::Sub(_), true, &[x, shift]) = (&node.op, wanted == low, &node.inputs[..])
            && shifts.contains(&shift)
        {
            // Its 16 upper bits, then what they lack.
            let x = cast(graph, &mut casts, x, low)?;
            let upper = cast(graph, &mut casts, shift, low)?;
            let rounded = cast(graph, &mut casts, upper, DType::F32)?;
            let lack = graph.sub(shift, rounded)?;
            let lower = cast(graph, &mut casts, lack, low)?;
            node.inputs = vec![graph.sub(x, upper)?, lower];
            push(graph, node)?;
            continue;
        }
        if in_stream {
            stream.extend(node.outputs.iter().copied());
        } else if gives_stream(&node.op) {
            stream.insert(node.outputs[0]);
        }
        let full = match class {
            Class::Mixed(full) => full,
            Class::Low
            | Class::Full
            | Class::Stream
            | Class::Join
            | Class::Move
            | Class::Follow => &[],
        };
        for (index, is_float) in floats.into_iter().enumerate() {
            if is_float {
                let wanted = match full.contains(&index) {
                    true => DType::F32,
                    false => wanted,
                };
                node.inputs[index] = cast(graph, &mut casts, node.inputs[index], wanted)?;
            }
        }
        push(graph, node)?;
    }
    for index in 0..graph.outputs.len() {
        let value = graph.outputs[index].1;
        if graph.ty(value).dtype == low {
            graph.outputs[index].1 = cast(graph, &mut casts, value, DType::F32)?;
        }
    }
    Ok(())
}

/// Sums of the products of two rows, `[.., n] · [.., n]` to `[.., 1]`, and these products.
fn row_sums(graph: &Graph) -> HashSet<ValueId> {
    let producers = graph.producers();
    let mut found = HashSet::new();
    for node in &graph.nodes {
        let Op::ReduceSum(op) = &node.op else {
            continue;
        };
        let product = node.inputs[0];
        let is_product =
            producers[product.0].is_some_and(|id| matches!(graph.nodes[id.0].op, Op::Mul(_)));
        if op.keep_dims && op.axes == [graph.ty(product).rank() - 1] && is_product {
            found.extend([product, node.outputs[0]]);
        }
    }
    found
}

/// `value` as `dtype`, converted once for all its readers.
fn cast(
    graph: &mut Graph,
    casts: &mut HashMap<(ValueId, DType), ValueId>,
    value: ValueId,
    dtype: DType,
) -> Result<ValueId, GraphError> {
    if graph.ty(value).dtype == dtype {
        return Ok(value);
    }
    if let Some(known) = casts.get(&(value, dtype)) {
        return Ok(*known);
    }
    let converted = graph.apply1(Cast { to: dtype }, &[value])?;
    casts.insert((value, dtype), converted);
    Ok(converted)
}

/// Appends a node whose inputs may have changed their element types.
fn push(graph: &mut Graph, node: Node) -> Result<(), GraphError> {
    let types: Vec<_> = node.inputs.iter().map(|v| graph.ty(*v)).collect();
    let inferred = crate::ir::infer(&node.op, &types)?;
    for (output, ty) in node.outputs.iter().zip(inferred) {
        graph.values[output.0].ty = ty;
    }
    graph.nodes.push(node);
    Ok(())
}
