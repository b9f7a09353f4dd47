//! The normalized rows that a weight's gradient is a product of are computed once more from the sum and
//! its statistics, instead of being kept beside them.

use super::matching::{ancestors, sort};
use crate::ir::{GraphError, ValueId};
use crate::ops::Op;
use crate::ops::residual_norm::{Inputs, NormalizedAgain};
use crate::ops::{Graph, Node};

/// Lets the products of the derivative read what is computed just before them.
///
/// # Errors
/// Where nodes need each other.
pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    for index in 0..graph.nodes.len() {
        if !matches!(graph.nodes[index].op, Op::ResidualNorm(_)) {
            continue;
        }
        let norm = graph.nodes[index].clone();
        let copy = norm.outputs[1];
        let Some(gradient) = gradient_of(graph, &norm) else {
            continue;
        };
        let needed = ancestors(graph, gradient);
        // Where the copy becomes a factor of a product with a gradient, for which it can wait.
        let readers: Vec<(usize, ValueId)> = graph
            .nodes
            .iter()
            .enumerate()
            .filter(|(at, node)| node.inputs.contains(&copy) && !needed.contains(at))
            .filter_map(|(at, node)| Some((at, other_factor(graph, node, copy)?)))
            .collect();
        for (at, after) in readers {
            let inputs = [
                norm.outputs[2],
                norm.outputs[3],
                norm.outputs[4],
                norm.inputs[Inputs::SCALE],
                norm.inputs[Inputs::SHIFT],
                after,
            ];
            let again = graph.apply1(NormalizedAgain, &inputs)?;
            for input in &mut graph.nodes[at].inputs {
                *input = if *input == copy { again } else { *input };
            }
        }
    }
    sort(graph)
}

/// What `node`, which reads `copy`, multiplies it with, itself or behind a change of shape.
fn other_factor(graph: &Graph, node: &Node, copy: ValueId) -> Option<ValueId> {
    let (product, factor) = match &node.op {
        Op::Reshape(_) => {
            let flat = node.outputs[0];
            (graph.nodes.iter().find(|n| n.inputs.contains(&flat))?, flat)
        }
        _ => (node, copy),
    };
    match (&product.op, &product.inputs[..]) {
        (Op::MatMul(_), &[a, b]) if a == factor => Some(b),
        (Op::MatMul(_), &[a, b]) if b == factor => Some(a),
        _ => None,
    }
}

/// The node that differentiates `norm`.
fn gradient_of(graph: &Graph, norm: &Node) -> Option<usize> {
    graph.nodes.iter().position(|node| match &node.op {
        Op::ResidualNormGrad(op) => node.inputs[op.incoming()] == norm.outputs[2],
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{GraphError, interpret, verify};
    use crate::model::pretraining::pretraining;
    use crate::model::testing::{SIZES, batch, tiny};
    use crate::model::{AttentionForm, Objective};
    use crate::ops::Op;
    use crate::passes::{Pipeline, fusions, tidy};

    #[test]
    fn weight_gradients_read_rows_that_are_computed_again() -> Result<(), GraphError> {
        let model = pretraining(&tiny(), true, AttentionForm::Expanded)?;
        let mut graph = model.graph;
        graph.output("loss", model.loss_sum);
        Pipeline::of("fuse", fusions()).run(&mut graph)?;
        let loss = graph.outputs[0].1;
        for (i, grad) in crate::autodiff::gradients(&mut graph, loss)?
            .into_iter()
            .enumerate()
        {
            graph.output(format!("grad{i}"), grad.expect("a gradient"));
        }
        Pipeline::of("tidy", tidy()).run(&mut graph)?;
        let feeds = batch(&graph, Objective::Mpnet, 3);
        let before = interpret(&graph, &SIZES, &feeds)?;
        run(&mut graph)?;
        verify(&graph, "recompute_normal")?;
        let after = interpret(&graph, &SIZES, &feeds)?;
        for (a, b) in after.iter().zip(&before) {
            let off = (a - b).fold(0.0_f64, |most, x| most.max(x.abs()));
            assert!(off <= 1e-9, "{off}");
        }
        let again = |n: &&crate::ops::Node| matches!(n.op, Op::NormalizedAgain(_));
        assert!(graph.nodes().iter().filter(again).count() >= 2);
        Ok(())
    }
}
