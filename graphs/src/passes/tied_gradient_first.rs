//! The tied embedding's gradient from the logits is computed as soon as it can be.
//!
//! ONNX Runtime runs depth first from the last output, and of a node's inputs first the one that stands last. The
//! product with the logits' gradient, their largest reader, would come at the very end, beside the rows that are
//! scattered into it, and the logits' gradient would be kept until then.

use crate::ir::{Graph, GraphError, Node, ValueId};
use crate::ops::Op;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let is_scatter = |n: &Node| matches!(n.op, Op::ScatterElements(_) | Op::ScatterAdd(_));
    let Some(scatter) = graph.nodes.iter().position(is_scatter) else {
        return Ok(());
    };
    let table = graph.nodes[scatter].inputs[0];
    let sums = graph.nodes[scatter].outputs[0];
    // The product and what converts it, moved behind everything that the scattered rows need.
    let chain = chain_to(graph, table);
    let leaf = graph.nodes.iter().position(|n| n.inputs.contains(&sums));
    let (Some(leaf), false) = (leaf, chain.is_empty()) else {
        return Ok(());
    };
    let mut moved = Vec::new();
    let mut last = Vec::new();
    let nodes = std::mem::take(&mut graph.nodes);
    for (index, node) in nodes.into_iter().enumerate() {
        if chain.contains(&index) {
            moved.push(node);
        } else if index == leaf {
            last.push(node);
        } else {
            if index == scatter {
                graph.nodes.append(&mut moved);
            }
            graph.nodes.push(node);
        }
    }
    graph.nodes.append(&mut last);
    Ok(())
}

/// The nodes from a matrix product to `value`, where each is read by the next alone.
fn chain_to(graph: &Graph, value: ValueId) -> Vec<usize> {
    let (producers, uses) = (graph.producers(), graph.use_counts());
    let (mut chain, mut value) = (Vec::new(), value);
    while let Some(id) = producers[value.0].filter(|_| uses[value.0] == 1) {
        chain.push(id.0);
        match &graph.nodes[id.0] {
            node if matches!(node.op, Op::MatMul(_)) => return chain,
            node if matches!(node.op, Op::Cast(_)) => value = node.inputs[0],
            _ => break,
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::memory::{execution_order, memory};
    use crate::ir::{Bindings, verify};
    use crate::lower::portable::{Options, Precision, Target, step_graph};
    use crate::model::config::ModelConfig;
    use crate::model::testing::tiny;
    use crate::optimizer::adamw::AdamW;

    #[test]
    fn the_logits_gradient_is_not_kept_through_the_layers() {
        let config = ModelConfig {
            encoder_layers: 4,
            vocab_size: 2000,
            padded_vocab_size: 2048,
            ..tiny()
        };
        let options = Options {
            optimizer: AdamW {
                beta1: 0.9,
                beta2: 0.98,
                epsilon: 1e-6,
                weight_decay: 0.01,
                clip_grad_norm: 1.0,
            },
            target: Target::Cuda,
            precision: Precision::BF16,
            fused_attention: false,
            own_kernels: true,
            expose: false,
        };
        let step = step_graph(&config, &options).expect("a step");
        let sizes = Bindings {
            batch: 8,
            length: 8,
            predicted: 4,
        };
        let peak = memory(&step.graph, &execution_order(&step.graph), &sizes);
        let late = peak.alive.keys().any(|(op, ty)| {
            *op == "BiasCrossEntropyGrad" && ty.contains("2048") && peak.at > step.graph.nodes().len() / 2
        });
        assert!(!late, "{peak:?}");
        let mut again = step.graph.clone();
        run(&mut again).expect("a second run");
        verify(&again, "tied_gradient_first").expect("a valid graph");
    }
}
