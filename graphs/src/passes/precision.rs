//! Mixed precision: matrix products and what lies between them in 16 bits, the loss and everything
//! that sums over a batch's rows into a table in f32.
//!
//! Parameters stay f32 and are converted where they are read; so do the graph's outputs. Softmax,
//! layer normalization and sums read and write 16 bits but compute in f32 inside their kernels.

use crate::ir::{DType, Graph, GraphError, Node, ValueId};
use crate::ops::{Op, cast::Cast};
use std::collections::HashMap;

/// How an operator takes its floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// In 16 bits, whatever they come in: what makes activations.
    Low,
    /// In f32, whatever they come in.
    Full,
    /// In 16 bits where any of them is.
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
        Op::Add(_)
        | Op::And(_)
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
        | Op::LayerNorm(_)
        | Op::LayerNormGrad(_)
        | Op::LayerNormOutput(_)
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
        | Op::Sub(_)
        | Op::Tanh(_)
        | Op::Transpose(_)
        | Op::Where(_)
        | Op::WrappingMul(_) => Class::Follow,
    }
}

/// Rewrites an f32 graph to work in `low` wherever that is safe.
///
/// # Errors
/// Where the result would not be a graph.
pub fn lower_precision(graph: &mut Graph, low: DType) -> Result<(), GraphError> {
    let mut casts = HashMap::new();
    for mut node in std::mem::take(&mut graph.nodes) {
        let is_float = |v: &ValueId| graph.ty(*v).dtype.is_float();
        let wanted = match class(&node.op) {
            Class::Low => low,
            Class::Full => DType::F32,
            Class::Follow => match node.inputs.iter().any(|v| graph.ty(*v).dtype == low) {
                true => low,
                false => DType::F32,
            },
        };
        let floats: Vec<bool> = node.inputs.iter().map(is_float).collect();
        for (input, is_float) in node.inputs.iter_mut().zip(floats) {
            if is_float {
                *input = cast(graph, &mut casts, *input, wanted)?;
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
