//! The logits' bias, their cross entropy and their best class become one operator.

use super::matching::{Matching, replace};
use crate::ir::{GraphError, ValueId};
use crate::ops::Graph;
use crate::ops::Op;
use crate::ops::bias_cross_entropy::BiasCrossEntropy;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let matching = Matching::new(graph);
    let mut found: Vec<Option<(Op, Vec<ValueId>)>> = vec![None; graph.nodes.len()];
    let mut logits = Vec::new();
    for (index, node) in graph.nodes.iter().enumerate() {
        let Op::CrossEntropy(op) = &node.op else {
            continue;
        };
        let Some(sum) = matching.made_by(node.inputs[0]) else {
            continue;
        };
        let (Op::Add(_), &[product, bias]) = (&sum.op, &sum.inputs[..]) else {
            continue;
        };
        // Nobody may read the log probabilities, which the operator does not give.
        if graph.ty(bias).rank() != 1 || !matching.unread(node.outputs[1]) {
            continue;
        }
        let fused = BiasCrossEntropy {
            ignore_index: op.ignore_index,
        };
        found[index] = Some((fused.into(), vec![product, bias, node.inputs[1]]));
        logits.push((index, node.inputs[0]));
    }
    let best: Vec<(usize, ValueId)> = graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| matches!(node.op, Op::ArgMax(_)))
        .filter_map(|(index, node)| {
            let fused = logits
                .iter()
                .find(|(at, v)| *at < index && *v == node.inputs[0]);
            fused.map(|(at, _)| (*at, node.outputs[0]))
        })
        .collect();
    replace(graph, found)?;
    let mut map = graph.identity_map();
    for (at, argmax) in best {
        map[argmax.0] = graph.nodes[at].outputs[1];
    }
    graph.replace_uses(&map);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{DType, Dim, GraphError, Symbol, Type};
    use crate::ops::Graph;
    use crate::ops::cross_entropy::CrossEntropy;
    use crate::passes::dead_code;
    use crate::passes::testing::rewritten;

    fn fuse_then_clean(graph: &mut Graph) -> Result<(), GraphError> {
        run(graph)?;
        dead_code::run(graph)
    }

    #[test]
    fn loss_and_best_class_are_one_operator() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let n = Dim::from(Symbol::LENGTH);
        let x = graph.input("x", Type::f32([n.clone(), 2.into()]));
        let targets = graph.input("targets", Type::new(DType::I64, [n]));
        let bias = graph.parameter("bias", Type::f32([Dim::from(2)]));
        let logits = graph.add(x, bias)?;
        let entropy = CrossEntropy { ignore_index: 1 };
        let loss = graph.apply1(entropy, &[logits, targets])?;
        let best = graph.argmax(logits)?;
        graph.output("loss", loss);
        graph.output("best", best);
        let left = rewritten(&mut graph, fuse_then_clean);
        assert_eq!(left, ["BiasCrossEntropy"]);
        Ok(())
    }
}
