//! A matrix product's bias, GELU and dropout become one operator.

use super::matching::{Matching, replace};
use crate::ir::GraphError;
use crate::ops::Graph;
use crate::ops::Op;
use crate::ops::bias_gelu::BiasGelu;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let matching = Matching::new(graph);
    let found = graph.nodes.iter().map(|node| {
        // From the end: with dropout its node is the last, else GELU's.
        let output = *node.outputs.first()?;
        let dropped = matching.dropped(output);
        let gelu = matching.made_by(dropped.input)?;
        let Op::Gelu(op) = &gelu.op else { return None };
        if graph.ty(output).rank() != 3 || !matching.read_once(gelu.inputs[0]) {
            return None;
        }
        let linear = matching.linear(gelu.inputs[0])?;
        let fused = BiasGelu {
            approximate: op.approximate,
            dropout: dropped.dropout,
        };
        let mut inputs = vec![linear.product, linear.bias];
        inputs.extend(dropped.mask);
        Some((fused.into(), inputs))
    });
    let found = found.collect();
    replace(graph, found)
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{DType, Dim, GraphError, Symbol, Type};
    use crate::ops::Graph;
    use crate::passes::dead_code;
    use crate::passes::testing::rewritten;

    fn fuse_then_clean(graph: &mut Graph) -> Result<(), GraphError> {
        run(graph)?;
        dead_code::run(graph)
    }

    #[test]
    fn a_layer_in_the_middle_is_one_operator_behind_its_product() -> Result<(), GraphError> {
        for with_dropout in [true, false] {
            let mut graph = Graph::new();
            let shape = |w: usize| [Symbol::LENGTH.into(), Symbol::BATCH.into(), Dim::from(w)];
            let x = graph.input("x", Type::f32(shape(3)));
            let weight = graph.parameter("weight", Type::f32([Dim::from(5), 3.into()]));
            let bias = graph.parameter("bias", Type::f32([Dim::from(5)]));
            let y = graph.linear(x, weight)?;
            let y = graph.add(y, bias)?;
            let mut y = graph.gelu(y, false)?;
            if with_dropout {
                let mask = graph.input("mask", Type::new(DType::U8, shape(5)));
                y = graph.dropout(y, mask, 0.5)?;
            }
            graph.output("y", y);
            let left = rewritten(&mut graph, fuse_then_clean);
            assert_eq!(left, ["MatMul", "BiasGelu"]);
        }
        Ok(())
    }

    #[test]
    fn what_another_node_reads_stays() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([2, 2, 3].map(Dim::from)));
        let weight = graph.parameter("weight", Type::f32([Dim::from(5), 3.into()]));
        let bias = graph.parameter("bias", Type::f32([Dim::from(5)]));
        let y = graph.linear(x, weight)?;
        let sum = graph.add(y, bias)?;
        let y = graph.gelu(sum, true)?;
        graph.output("sum", sum);
        graph.output("y", y);
        let left = rewritten(&mut graph, fuse_then_clean);
        assert_eq!(left, ["MatMul", "Add", "Gelu"]);
        Ok(())
    }
}
