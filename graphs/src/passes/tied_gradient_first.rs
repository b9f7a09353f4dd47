//! The tied embedding's gradient from the logits is computed as soon as it can be.
//!
//! ONNX Runtime runs depth first from the last output, and of a node's inputs first the one that stands last. The
//! product with the logits' gradient, their largest reader, would come at the very end, beside the rows that are
//! scattered into it, and the logits' gradient would be kept until then.

use crate::ir::{Graph, GraphError, ValueId};
use crate::ops::Op;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    // The product and what converts it, moved behind everything that the scattered rows need.
    let scatters = graph.nodes.iter().enumerate();
    let found = scatters
        .filter(|(_, n)| matches!(n.op, Op::ScatterElements(_) | Op::ScatterAdd(_)))
        .map(|(index, n)| (index, n.outputs[0], chain_to(graph, n.inputs[0])))
        .find(|(_, _, chain)| !chain.is_empty());
    let Some((scatter, sums, chain)) = found else {
        return Ok(());
    };
    let leaf = graph.nodes.iter().position(|n| n.inputs.contains(&sums));
    let Some(leaf) = leaf else {
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
    use crate::ir::memory::execution_order;
    use crate::ir::{Node, verify};
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
        let order = execution_order(&step.graph);
        let time = |value| {
            order
                .iter()
                .position(|n| step.graph.nodes()[n.0].inputs.contains(&value))
        };
        let node = |name: &'static str| {
            let found = move |n: &&Node| n.op.operator().name() == name;
            step.graph.nodes().iter().filter(found)
        };
        let logits = node("BiasCrossEntropyGrad")
            .next()
            .expect("the loss's derivative");
        let readers = order
            .iter()
            .enumerate()
            .filter(|(_, n)| step.graph.nodes()[n.0].inputs.contains(&logits.outputs[0]));
        let last_reader = readers.map(|(time, _)| time).max().expect("a reader");
        // Before the derivative of the first layer that is differentiated.
        let first_layer = node("ResidualNormGrad")
            .filter_map(|n| time(n.outputs[0]))
            .min();
        assert!(
            Some(last_reader) < first_layer,
            "{last_reader}, {first_layer:?}"
        );
        let mut again = step.graph.clone();
        run(&mut again).expect("a second run");
        verify(&again, "tied_gradient_first").expect("a valid graph");
    }
}
