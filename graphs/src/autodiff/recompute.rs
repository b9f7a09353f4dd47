//! What derivatives compute once more instead of keeping it: the nodes between two checkpoints.
//!
//! Derivatives read a second copy of a layer's nodes, which starts from the layer's input. The copy
//! waits for the gradients that have reached the layer, by a choice between one of its inputs and
//! itself, or it would be merged with the first one, here and by ONNX Runtime. Same operations on
//! the same numbers, so the same bits.

use crate::ir::{Dim, GraphError, ValueId};
use crate::ops::Op;
use crate::ops::binary::{And, Equal};
use crate::ops::{Graph, Node};
use std::collections::{HashMap, HashSet};

/// The nodes of a forward pass that lie between checkpoints, and what they give when they are
/// computed again.
pub(super) struct Recompute {
    segments: Vec<Segment>,
    /// For each node of the forward pass, the segment in which it is computed again.
    segment_of: Vec<Option<usize>>,
    /// Values of the forward pass, by what stands for them in the derivative.
    again: HashMap<ValueId, ValueId>,
}

/// What lies between two checkpoints.
struct Segment {
    /// The first checkpoint, and other values that equal it.
    from: Vec<ValueId>,
    /// Nodes that need it, in order.
    nodes: Vec<usize>,
    /// Whether they are in the graph a second time.
    cloned: bool,
}

impl Recompute {
    pub(super) fn new(graph: &Graph, checkpoints: &[ValueId]) -> Recompute {
        let mut segment_of = vec![None; graph.nodes.len()];
        let segments = checkpoints
            .windows(2)
            .enumerate()
            .map(|(index, pair)| {
                let from = equal_values(graph, pair[0]);
                let nodes = between(graph, &from, pair[1]);
                for &node in &nodes {
                    segment_of[node] = Some(index);
                }
                Segment {
                    from,
                    nodes,
                    cloned: false,
                }
            })
            .collect();
        Recompute {
            segments,
            segment_of,
            again: HashMap::new(),
        }
    }

    /// Node `index` with the values that its derivative is to read; `known` are gradients that are
    /// to be computed before anything is computed again for it.
    pub(super) fn node(
        &mut self,
        graph: &mut Graph,
        index: usize,
        known: impl FnOnce(&Graph) -> Vec<ValueId>,
    ) -> Result<Node, GraphError> {
        if let Some(segment) = self.segment_of[index] {
            self.clone_segment(graph, segment, known)?;
        }
        let mut node = graph.nodes[index].clone();
        self.rename(&mut node.inputs);
        self.rename(&mut node.outputs);
        Ok(node)
    }

    fn rename(&self, values: &mut [ValueId]) {
        for value in values {
            *value = self.again.get(value).copied().unwrap_or(*value);
        }
    }

    /// Appends the nodes of a segment a second time, to run behind `known`.
    fn clone_segment(
        &mut self,
        graph: &mut Graph,
        segment: usize,
        known: impl FnOnce(&Graph) -> Vec<ValueId>,
    ) -> Result<(), GraphError> {
        let segment = &mut self.segments[segment];
        if std::mem::replace(&mut segment.cloned, true) {
            return Ok(());
        }
        let (from, nodes) = (segment.from.clone(), segment.nodes.clone());
        let known = known(graph);
        let known = all_known(graph, &known)?;
        // What is not computed before `known`.
        let mut waiting = HashSet::new();
        let mut start = from[0];
        // The stream of a residual normalization is what the first nodes read: a weight is less to copy.
        // Others are read in 16 bits too, by a cast that would be merged with the first one.
        if let (Some(known), [checkpoint]) = (known, &from[..]) {
            start = graph.where_select(known, *checkpoint, *checkpoint)?;
            waiting.insert(start);
        }
        self.again.extend(from.iter().map(|v| (*v, start)));
        for index in nodes {
            let node = graph.nodes[index].clone();
            let mut inputs = node.inputs;
            self.rename(&mut inputs);
            if let Some(known) = known
                && !inputs.iter().any(|v| waiting.contains(v))
            {
                let place = lightest(graph, &inputs);
                inputs[place] = graph.where_select(known, inputs[place], inputs[place])?;
            }
            let outputs = graph.apply(node.op, &inputs)?;
            waiting.extend(outputs.iter().copied());
            self.again.extend(node.outputs.iter().copied().zip(outputs));
        }
        Ok(())
    }
}

/// `checkpoint` and what else has its numbers: a residual normalization gives them twice.
fn equal_values(graph: &Graph, checkpoint: ValueId) -> Vec<ValueId> {
    let producer = graph.producers()[checkpoint.0].map(|id| &graph.nodes[id.0]);
    match producer {
        Some(node) if matches!(node.op, Op::ResidualNorm(_)) => node.outputs[..2].to_vec(),
        _ => vec![checkpoint],
    }
}

/// The nodes that need one of `from` and that `to` needs, in order.
fn between(graph: &Graph, from: &[ValueId], to: ValueId) -> Vec<usize> {
    let mut reached = vec![false; graph.values.len()];
    for value in from {
        reached[value.0] = true;
    }
    let mut behind = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate() {
        behind[index] = node.inputs.iter().any(|v| reached[v.0]);
        for output in &node.outputs {
            reached[output.0] |= behind[index];
        }
    }
    let mut wanted = vec![false; graph.values.len()];
    wanted[to.0] = true;
    let mut nodes = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if behind[index] && node.outputs.iter().any(|v| wanted[v.0]) {
            for input in &node.inputs {
                wanted[input.0] = true;
            }
            nodes.push(index);
        }
    }
    nodes.reverse();
    nodes
}

/// The place of the smallest vector or matrix of floats whose size no batch changes; the first where
/// there is none.
fn lightest(graph: &Graph, inputs: &[ValueId]) -> usize {
    let elements = |value: &ValueId| -> Option<usize> {
        let ty = graph.ty(*value);
        let sizes = ty.shape.iter().map(Dim::as_const);
        let usable = ty.dtype.is_float() && !ty.shape.is_empty();
        usable.then(|| sizes.product())?
    };
    let known = inputs.iter().enumerate();
    let known = known.filter_map(|(place, value)| Some((elements(value)?, place)));
    known.min().map_or(0, |(_, place)| place)
}

/// True once all `tokens` are known; it says so of one element of each. None where there are no tokens.
fn all_known(graph: &mut Graph, tokens: &[ValueId]) -> Result<Option<ValueId>, GraphError> {
    let mut all = None;
    for &token in tokens {
        let mut element = token;
        for axis in 0..graph.ty(token).rank() {
            element = graph.slice(element, axis, Dim::from(0), Dim::from(1))?;
        }
        let element = graph.reshape(element, [Dim::from(1)])?;
        let known = graph.apply1(Equal, &[element, element])?; // [1]
        all = Some(match all {
            Some(others) => graph.apply1(And, &[others, known])?,
            None => known,
        });
    }
    Ok(all)
}
