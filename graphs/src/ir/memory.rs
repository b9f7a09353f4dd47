//! How much memory a graph's intermediate values hold at once, in the order in which ONNX Runtime
//! executes its nodes.

use super::cost::bytes;
use super::graph::{Graph, NodeId, ValueId};
use super::operation::{Operation, Storage};
use mpnet_plan::Bindings;
use std::collections::BTreeMap;

/// The memory of a graph's intermediate values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Memory {
    /// Most bytes that are alive at once, inputs, parameters and constants left out.
    pub peak: u64,
    /// Where in the order of execution that is.
    pub at: usize,
    /// What is alive then, by operator and type of the value: how many, and their bytes.
    pub alive: BTreeMap<(&'static str, String), (usize, u64)>,
}

/// The order in which ONNX Runtime executes the nodes of `graph` by default: depth first from the
/// outputs that nothing else reads, the last of them and of every node's inputs first.
///
/// Source: `Graph::ReverseDFSFrom` as `GraphViewer` calls it, ONNX Runtime 1.17 to 1.32.
pub fn execution_order<O: Operation>(graph: &Graph<O>) -> Vec<NodeId> {
    let producers = graph.producers();
    let mut read = vec![false; graph.nodes().len()];
    for node in graph.nodes() {
        for producer in node.inputs.iter().filter_map(|v| producers[v.0]) {
            read[producer.0] = true;
        }
    }
    let leaves = (0..graph.nodes().len()).filter(|&n| !read[n]);
    let mut stack: Vec<(usize, bool)> = leaves.map(|n| (n, false)).collect();
    let mut visited = vec![false; graph.nodes().len()];
    let mut order = Vec::with_capacity(visited.len());
    while let Some((index, leaving)) = stack.pop() {
        if leaving {
            order.push(NodeId(index));
            continue;
        }
        if std::mem::replace(&mut visited[index], true) {
            continue;
        }
        stack.push((index, true));
        let inputs = graph.nodes()[index].inputs.iter();
        let mut before: Vec<usize> = inputs
            .filter_map(|v| producers[v.0].map(|n| n.0))
            .filter(|&n| !visited[n])
            .collect();
        before.sort_unstable();
        before.dedup();
        stack.extend(before.into_iter().map(|n| (n, false)));
    }
    order
}

/// Most bytes of intermediate values that are alive at once when ONNX Runtime runs `graph` by default.
pub fn peak<O: Operation>(graph: &Graph<O>, sizes: &Bindings) -> u64 {
    memory(graph, &execution_order(graph), sizes).peak
}

/// The memory that the values of `graph` take when its nodes run in `order`, each freed after its
/// last use, which for one that nobody reads is the end; a reshape is another view of its input.
pub fn memory<O: Operation>(graph: &Graph<O>, order: &[NodeId], sizes: &Bindings) -> Memory {
    let mut read = vec![false; graph.values.len()];
    let inputs = graph.nodes().iter().flat_map(|node| &node.inputs);
    for value in inputs.chain(graph.outputs().iter().map(|(_, v)| v)) {
        read[value.0] = true;
    }
    // The value whose memory each value lies in.
    let mut storage: Vec<usize> = (0..graph.values.len()).collect();
    let mut owned = vec![false; graph.values.len()];
    for node in graph.nodes() {
        for output in &node.outputs {
            let given = read[output.0] || !node.op.optional_outputs();
            owned[output.0] = given && node.op.storage() != Storage::File;
        }
        if let (Storage::OfInput, [output]) = (node.op.storage(), &node.outputs[..]) {
            storage[output.0] = storage[node.inputs[0].0];
        }
    }
    let mut last_use = vec![0; graph.values.len()];
    for (time, id) in order.iter().enumerate() {
        let node = &graph.nodes()[id.0];
        for value in node.inputs.iter().chain(&node.outputs) {
            last_use[storage[value.0]] = time;
        }
    }
    for (_, value) in graph.outputs() {
        last_use[storage[value.0]] = order.len();
    }
    for value in graph.nodes().iter().flat_map(|node| &node.outputs) {
        if !read[value.0] {
            last_use[storage[value.0]] = order.len();
        }
    }
    let size = |value: usize| match owned[value] {
        true => bytes(graph, ValueId(value), sizes),
        false => 0,
    };
    let mut freed = vec![0; order.len() + 1];
    for (value, time) in last_use.iter().enumerate() {
        if storage[value] == value {
            freed[*time] += size(value);
        }
    }
    let (mut alive, mut peak) = (0, Memory::default());
    for (time, id) in order.iter().enumerate() {
        let outputs = &graph.nodes()[id.0].outputs;
        let new = outputs.iter().filter(|v| storage[v.0] == v.0);
        alive += new.map(|v| size(v.0)).sum::<u64>();
        if alive > peak.peak {
            (peak.peak, peak.at) = (alive, time);
        }
        alive -= freed[time];
    }
    for id in order.iter().take(peak.at + 1) {
        let node = &graph.nodes()[id.0];
        for output in &node.outputs {
            let here = storage[output.0] == output.0 && size(output.0) > 0;
            if here && last_use[output.0] >= peak.at {
                let key = (node.op.name(), graph.ty(*output).to_string());
                let (count, bytes) = peak.alive.entry(key).or_default();
                *count += 1;
                *bytes += size(output.0);
            }
        }
    }
    peak
}

#[cfg(test)]
mod tests {
    use super::{execution_order, memory};
    use crate::ir::{Bindings, Dim, Type};
    use crate::ops::Graph;

    const SIZES: Bindings = Bindings::new([]);

    #[test]
    fn what_is_kept_counts_and_a_reshape_is_free() {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(10)]));
        let a = graph.sqrt(x).unwrap(); // 40 bytes, kept for d
        let b = graph.sqrt(a).unwrap();
        let b = graph.reshape(b, [Dim::from(2), Dim::from(5)]).unwrap();
        let c = graph.reduce_sum(b, &[1], false).unwrap(); // 8 bytes
        let d = graph.reduce_sum(a, &[0], false).unwrap(); // 4 bytes
        let e = graph.mul(c, d).unwrap();
        graph.output("e", e);
        let order = execution_order(&graph);
        let peak = memory(&graph, &order, &SIZES);
        // a, b and c: d, the input that comes later, is computed first, and a is still needed.
        assert_eq!(peak.peak, 40 + 40 + 4);
        let emitted: Vec<_> = (0..graph.nodes().len()).map(crate::ir::NodeId).collect();
        assert_eq!(memory(&graph, &emitted, &SIZES).peak, 40 + 40 + 8);
    }

    #[test]
    fn what_nobody_reads_is_held_to_the_end_unless_it_can_be_left_out() {
        use crate::ops::dropping::{Dropping, RowDropout};
        use crate::ops::layer_norm::LayerNorm;
        use crate::ops::residual_norm::ResidualNorm;
        let peak = |fused: bool| {
            let mut graph = Graph::new();
            let rows = Type::f32([Dim::from(5), Dim::from(1), Dim::from(4)]); // 80 bytes
            let x = graph.input("x", rows);
            let vector = graph.parameter("vector", Type::f32([Dim::from(4)]));
            let epsilon = 1e-5;
            let y = match fused {
                true => {
                    let dropout = RowDropout {
                        ratio: 0.0,
                        dropping: Dropping::Nothing,
                    };
                    let norm = ResidualNorm { epsilon, dropout };
                    graph.apply(norm, &[x, x, vector, vector, vector]).unwrap()[1]
                }
                false => {
                    let norm = LayerNorm { epsilon };
                    graph.apply(norm, &[x, vector, vector]).unwrap()[0]
                }
            };
            let sum = graph.reduce_sum(y, &[0, 1, 2], false).unwrap();
            let root = graph.sqrt(sum).unwrap();
            graph.output("root", root);
            let order = execution_order(&graph);
            memory(&graph, &order, &SIZES)
        };
        // The rows and two statistics of 20 bytes.
        assert_eq!(peak(false).peak, 80 + 20 + 20 + 4);
        assert_eq!(peak(false).alive.len(), 3);
        assert_eq!(peak(true).peak, 80 + 4);
    }

    #[test]
    fn every_node_comes_once_and_after_its_inputs() {
        let graph = crate::lower::ort_training::training_graph(
            &crate::model::testing::tiny(),
            false,
            mpnet_plan::Provider::Cpu,
        )
        .unwrap()
        .0;
        let order = execution_order(&graph);
        assert_eq!(order.len(), graph.nodes().len());
        let producers = graph.producers();
        let mut done = vec![false; order.len()];
        for id in order {
            for input in &graph.nodes()[id.0].inputs {
                assert!(producers[input.0].is_none_or(|n| done[n.0]));
            }
            assert!(!std::mem::replace(&mut done[id.0], true));
        }
    }
}
