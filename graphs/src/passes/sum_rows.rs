//! Sums over all dimensions but the last, as a bias' gradient is, by the kernel of ours: ONNX Runtime's for CUDA adds
//! them up by atomics, in another order each time.

use crate::ir::GraphError;
use crate::ops::reduce::SumRows;
use crate::ops::{Graph, Op};

pub(crate) fn sum_rows(graph: &mut Graph) -> Result<(), GraphError> {
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let Op::ReduceSum(sum) = &node.op else {
            continue;
        };
        let x = graph.ty(node.inputs[0]);
        let leading = sum.axes.iter().copied().eq(0..x.rank().saturating_sub(1));
        if leading && !sum.keep_dims && x.dtype.is_float() {
            graph.nodes[index].op = SumRows.into();
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::sum_rows;
    use crate::ir::{GraphError, Type};
    use crate::ops::Graph;
    use crate::passes::testing::rewritten;

    #[test]
    fn only_sums_of_rows_change() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([2.into(), 3.into(), 4.into()]));
        for (name, axes, kept) in [
            ("rows", &[0, 1][..], false),
            ("all", &[0, 1, 2], false),
            ("columns", &[2], false),
            ("kept", &[0, 1], true),
        ] {
            let sum = graph.reduce_sum(x, axes, kept)?;
            graph.output(name, sum);
        }
        let left = rewritten(&mut graph, sum_rows);
        assert_eq!(left, ["SumRows", "ReduceSum", "ReduceSum", "ReduceSum"]);
        Ok(())
    }
}
