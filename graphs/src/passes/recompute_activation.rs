//! What lies between the two products of a feed-forward block is computed once more by its derivative,
//! instead of being kept until then: the largest tensor of a layer.
//!
//! GELU's derivative, which has everything at hand, gives its value once more for the weight's
//! gradient.

use super::matching::{ancestors, sort};
use crate::ir::GraphError;
use crate::ops::Graph;
use crate::ops::Op;
use crate::ops::bias_gelu::VALUE;

/// Lets what runs after a derivative read the value from there.
///
/// # Errors
/// Where nodes need each other.
pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    for index in 0..graph.nodes.len() {
        let gradient = &graph.nodes[index];
        if !matches!(gradient.op, Op::BiasGeluGrad(_)) {
            continue;
        }
        let again = gradient.outputs[VALUE];
        let forward = graph
            .nodes
            .iter()
            .find(|n| matches!(n.op, Op::BiasGelu(_)) && n.inputs == gradient.inputs[1..]);
        let Some(value) = forward.map(|n| n.outputs[0]) else {
            continue;
        };
        let needed = ancestors(graph, index);
        for (reader, node) in graph.nodes.iter_mut().enumerate() {
            if reader != index && !needed.contains(&reader) {
                for input in &mut node.inputs {
                    *input = if *input == value { again } else { *input };
                }
            }
        }
    }
    sort(graph)
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::autodiff::gradients;
    use crate::ir::{Dim, GraphError, Symbol, Type};
    use crate::ops::Graph;
    use crate::ops::Op;
    use crate::ops::bias_gelu::BiasGelu;
    use crate::ops::dropping::{Dropping, RowDropout};
    use crate::passes::testing::rewritten;

    #[test]
    fn the_second_product_s_weight_gradient_reads_the_recomputed_value() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let shape = [Symbol::LENGTH.into(), Symbol::BATCH.into(), Dim::from(4)];
        let x = graph.input("x", Type::f32(shape));
        let bias = graph.parameter("bias", Type::f32([Dim::from(4)]));
        let weight = graph.parameter("weight", Type::f32([Dim::from(3), 4.into()]));
        let op = BiasGelu {
            approximate: false,
            dropout: RowDropout {
                ratio: 0.0,
                dropping: Dropping::Nothing,
            },
        };
        let y = graph.apply1(op, &[x, bias])?;
        let y = graph.linear(y, weight)?;
        let y = graph.mul(y, y)?;
        let loss = graph.reduce_sum(y, &[0, 1, 2], false)?;
        for (i, grad) in gradients(&mut graph, loss)?.into_iter().enumerate() {
            graph.output(format!("grad{i}"), grad.expect("a gradient"));
        }
        rewritten(&mut graph, run);
        let forward = |n: &&crate::ops::Node| matches!(n.op, Op::BiasGelu(_));
        let kept = graph
            .nodes()
            .iter()
            .find(forward)
            .expect("BiasGelu")
            .outputs[0];
        let readers = graph.nodes().iter().filter(|n| n.inputs.contains(&kept));
        assert_eq!(readers.count(), 1);
        Ok(())
    }
}
