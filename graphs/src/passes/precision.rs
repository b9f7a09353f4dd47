//! Mixed precision: matrix products and what lies between them in 16 bits; the residual stream that
//! the layers add to, the loss, and everything that sums over a batch's rows into a table in f32.
//!
//! A stream in 16 bits would be rounded twice in each layer, and these errors add up over the depth to
//! most of what the gradients differ by. A number that a whole row of scores is shifted by keeps f32's
//! precision too, as its error is the same for the whole row. Parameters stay f32 and are converted where they are read; so
//! do the graph's outputs. Softmax and sums read and write 16 bits but compute in f32 inside their
//! kernels.

use crate::ir::{DType, GraphError, ValueId};
use crate::ops::cast::Cast;
use crate::ops::{Arithmetic, Op};
use crate::ops::{Graph, Node};
use std::collections::{HashMap, HashSet};

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
        let arithmetic = match node.outputs.iter().any(|v| shifts.contains(v)) {
            true => Arithmetic::Full,
            false => node.op.operator().arithmetic(),
        };
        let in_stream = match arithmetic {
            Arithmetic::Low
            | Arithmetic::Full
            | Arithmetic::PerInput { .. }
            | Arithmetic::Follow => false,
            Arithmetic::Stream => true,
            Arithmetic::Join => any_stream,
            Arithmetic::Move => any_stream && inputs().all(|v| stream.contains(v)),
        };
        let wanted = match arithmetic {
            Arithmetic::Low | Arithmetic::PerInput { .. } => low,
            Arithmetic::Full => DType::F32,
            Arithmetic::Stream | Arithmetic::Join | Arithmetic::Move | Arithmetic::Follow => {
                let any_low = inputs().any(|v| graph.ty(*v).dtype == low);
                match !in_stream && (any_stream || any_low) {
                    true => low,
                    false => DType::F32,
                }
            }
        };
        let (full, gives_stream) = match arithmetic {
            Arithmetic::PerInput { full, gives_stream } => (full, gives_stream),
            Arithmetic::Low
            | Arithmetic::Full
            | Arithmetic::Stream
            | Arithmetic::Join
            | Arithmetic::Move
            | Arithmetic::Follow => (Vec::new(), false),
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
        } else if gives_stream {
            stream.insert(node.outputs[0]);
        }
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
