//! What rewrites ask about the surroundings of a value.

use crate::ir::{GraphError, NodeId, ValueId};
use crate::ops::Op;
use crate::ops::dropping::{Dropping, RowDropout};
use crate::ops::{Graph, Node};
use std::collections::HashSet;

/// Who makes and who reads each value of a graph, as it was when this was made.
pub(super) struct Matching<'a> {
    graph: &'a Graph,
    producers: Vec<Option<NodeId>>,
    uses: Vec<usize>,
}

/// A matrix product and the vector added to it.
pub(super) struct Linear {
    pub product: ValueId,
    pub bias: ValueId,
}

/// A dropout's input, and what drops its elements.
pub(super) struct Dropped {
    pub input: ValueId,
    pub dropout: RowDropout,
    pub mask: Option<ValueId>,
}

impl<'a> Matching<'a> {
    pub(super) fn new(graph: &'a Graph) -> Matching<'a> {
        Matching {
            graph,
            producers: graph.producers(),
            uses: graph.use_counts(),
        }
    }

    /// The node that makes `value`.
    pub(super) fn made_by(&self, value: ValueId) -> Option<&'a Node> {
        self.producers[value.0].map(|id| &self.graph.nodes[id.0])
    }

    pub(super) fn read_once(&self, value: ValueId) -> bool {
        self.uses[value.0] == 1
    }

    pub(super) fn unread(&self, value: ValueId) -> bool {
        self.uses[value.0] == 0
    }

    /// `value` as a matrix product plus a vector, neither read elsewhere.
    pub(super) fn linear(&self, value: ValueId) -> Option<Linear> {
        let node = self.made_by(value)?;
        let (Op::Add(_), &[product, bias]) = (&node.op, &node.inputs[..]) else {
            return None;
        };
        let is_product = matches!(self.made_by(product)?.op, Op::MatMul(_));
        let is_bias = self.graph.ty(bias).rank() == 1;
        (is_product && is_bias && self.read_once(product)).then_some(Linear { product, bias })
    }

    /// `value` as dropout by a mask of something not read elsewhere, or as itself.
    pub(super) fn dropped(&self, value: ValueId) -> Dropped {
        let found = self.made_by(value).and_then(|node| match &node.op {
            Op::Dropout(op) if self.read_once(node.inputs[0]) => Some((op, node)),
            _ => None,
        });
        match found {
            Some((op, node)) => Dropped {
                input: node.inputs[0],
                dropout: RowDropout {
                    ratio: op.ratio,
                    dropping: Dropping::Mask,
                },
                mask: Some(node.inputs[1]),
            },
            None => Dropped {
                input: value,
                dropout: RowDropout {
                    ratio: 0.0,
                    dropping: Dropping::Nothing,
                },
                mask: None,
            },
        }
    }
}

/// Replaces nodes one by one: `replace` gives, for a node's index, what takes its place, with inputs as
/// they were before; what a replaced node gave is read off the new one's outputs, in order.
pub(super) fn replace(
    graph: &mut Graph,
    replacements: Vec<Option<(Op, Vec<ValueId>)>>,
) -> Result<(), GraphError> {
    let mut map = graph.identity_map();
    let nodes = std::mem::take(&mut graph.nodes);
    for (mut node, replacement) in nodes.into_iter().zip(replacements) {
        let Some((op, inputs)) = replacement else {
            for input in &mut node.inputs {
                *input = map[input.0];
            }
            graph.nodes.push(node);
            continue;
        };
        let inputs: Vec<ValueId> = inputs.into_iter().map(|v| map[v.0]).collect();
        let outputs = graph.apply(op, &inputs)?;
        for (old, new) in node.outputs.iter().zip(outputs) {
            map[old.0] = new;
        }
    }
    map.extend((map.len()..graph.values.len()).map(ValueId));
    graph.replace_uses(&map);
    Ok(())
}

/// The nodes that node `index` needs.
pub(super) fn ancestors(graph: &Graph, index: usize) -> HashSet<usize> {
    let mut wanted: HashSet<ValueId> = graph.nodes[index].inputs.iter().copied().collect();
    let mut found = HashSet::new();
    for (at, node) in graph.nodes[..index].iter().enumerate().rev() {
        if node.outputs.iter().any(|v| wanted.contains(v)) {
            found.insert(at);
            wanted.extend(&node.inputs);
        }
    }
    found
}

/// Puts every node behind those it needs, otherwise in the order in which they are.
///
/// # Errors
/// Where nodes need each other.
pub(super) fn sort(graph: &mut Graph) -> Result<(), GraphError> {
    let mut missing = vec![false; graph.values.len()];
    for node in &graph.nodes {
        for output in &node.outputs {
            missing[output.0] = true;
        }
    }
    let mut waiting = std::mem::take(&mut graph.nodes);
    while !waiting.is_empty() {
        let before = waiting.len();
        for node in std::mem::take(&mut waiting) {
            match node.inputs.iter().any(|v| missing[v.0]) {
                true => waiting.push(node),
                false => {
                    for output in &node.outputs {
                        missing[output.0] = false;
                    }
                    graph.nodes.push(node);
                }
            }
        }
        if waiting.len() == before {
            return Err(GraphError::Invalid {
                stage: "sort".to_owned(),
                reason: "nodes need each other".to_owned(),
            });
        }
    }
    Ok(())
}
