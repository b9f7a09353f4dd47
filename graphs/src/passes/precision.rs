//! Mixed precision: matrix products and what lies between them in 16 bits; the loss, the residual
//! stream through the layer normalizations, its gradient, and everything that sums over a batch's
//! rows into a table in f32.
//!
//! Every layer rounds what it adds to the stream, not the stream: rounded sums would add up over the
//! layers. Parameters stay f32 and are converted where they are read; so do the graph's outputs.
//! Softmax and sums read and write 16 bits but compute in f32 inside their kernels.

use crate::ir::{DType, Graph, GraphError, Node, ValueId};
use crate::ops::{Op, cast::Cast};
use std::collections::{HashMap, HashSet};

/// How an operator takes its floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// In 16 bits, whatever they come in: what makes activations.
    Low,
    /// In f32, whatever they come in.
    Full,
    /// In f32, whatever they come in, and so is what is computed from it until a product needs less.
    Stream,
    /// In 16 bits but for tables and sums, which are in f32.
    Attention,
    /// In f32 where the stream is among them, and part of it; else in 16 bits where any of them is.
    Join,
    /// In f32 where they are the stream and parameters, and part of it; else in 16 bits where any of
    /// them is or the stream is among them.
    Follow,
}

fn class(op: &Op) -> Class {
    match op {
        Op::MatMul(_) | Op::Gather(_) | Op::Split(_) => Class::Low,
        Op::Accumulate(_)
        | Op::ArgMax(_)
        | Op::CrossEntropy(_)
        | Op::CrossEntropyGrad(_)
        | Op::Equal(_)
        | Op::Less(_)
        | Op::ScatterAdd(_)
        | Op::ScatterElements(_)
        | Op::SumSquares(_) => Class::Full,
        Op::TwoStreamAttention(_) | Op::TwoStreamAttentionGrad(_) => Class::Attention,
        Op::LayerNorm(_) | Op::LayerNormGrad(_) | Op::LayerNormOutput(_) => Class::Stream,
        Op::Add(_) | Op::Sub(_) => Class::Join,
        Op::And(_)
        | Op::Cast(_)
        | Op::Concat(_)
        | Op::Constant(_)
        | Op::Div(_)
        | Op::Dropout(_)
        | Op::Erf(_)
        | Op::Exp(_)
        | Op::Expand(_)
        | Op::Gelu(_)
        | Op::GeluGrad(_)
        | Op::Iota(_)
        | Op::Mul(_)
        | Op::Pad(_)
        | Op::ReduceSum(_)
        | Op::Relu(_)
        | Op::ReluGrad(_)
        | Op::Reshape(_)
        | Op::Sigmoid(_)
        | Op::Slice(_)
        | Op::Softmax(_)
        | Op::SoftmaxGrad(_)
        | Op::Sqrt(_)
        | Op::Tanh(_)
        | Op::Transpose(_)
        | Op::Where(_)
        | Op::WrappingMul(_) => Class::Follow,
    }
}

/// Inputs of an attention that are f32 in every precision: the log-sum-exp and the bias.
fn always_full(op: &Op) -> &'static [usize] {
    match class(op) {
        Class::Attention if matches!(op, Op::TwoStreamAttention(_)) => &[5],
        Class::Attention => &[2, 8],
        Class::Low | Class::Full | Class::Stream | Class::Join | Class::Follow => &[],
    }
}

/// Rewrites an f32 graph to work in `low` wherever that is safe.
///
/// # Errors
/// Where the result would not be a graph.
pub fn lower_precision(graph: &mut Graph, low: DType) -> Result<(), GraphError> {
    let mut casts = HashMap::new();
    let mut stream = HashSet::new();
    let parameters: HashSet<ValueId> = graph.parameters().iter().copied().collect();
    for mut node in std::mem::take(&mut graph.nodes) {
        let is_float = |v: &ValueId| graph.ty(*v).dtype.is_float();
        let floats: Vec<bool> = node.inputs.iter().map(is_float).collect();
        let any_low = node.inputs.iter().any(|v| graph.ty(*v).dtype == low);
        let any_stream = node.inputs.iter().any(|v| stream.contains(v));
        // A parameter or a number takes the type of what it is combined with.
        let yields = |v: &ValueId| parameters.contains(v) || graph.ty(*v).shape.is_empty();
        let only_stream = || {
            let mut inputs = node.inputs.iter().filter(|v| is_float(v));
            inputs.all(|v| stream.contains(v) || yields(v))
        };
        let joins = match class(&node.op) {
            Class::Low | Class::Full | Class::Attention => false,
            Class::Stream => true,
            Class::Join => any_stream,
            Class::Follow => any_stream && only_stream(),
        };
        let wanted = match class(&node.op) {
            Class::Low | Class::Attention => low,
            Class::Full | Class::Stream => DType::F32,
            Class::Join | Class::Follow if joins => DType::F32,
            Class::Join | Class::Follow if any_low || any_stream => low,
            Class::Join | Class::Follow => DType::F32,
        };
        if joins {
            stream.extend(node.outputs.iter().copied());
        }
        for (index, is_float) in floats.into_iter().enumerate() {
            if is_float {
                let wanted = match always_full(&node.op).contains(&index) {
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
