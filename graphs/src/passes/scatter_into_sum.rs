//! `a + scatter(0, indices, rows)` becomes `scatter(a, indices, rows)`: the tied embedding's two
//! gradients are summed where they fall instead of over the whole table.

use crate::ir::{GraphError, NodeId, ValueId};
use crate::ops::Graph;
use crate::ops::{Op, scatter::ScatterAdd};

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let producers = graph.producers();
    let uses = graph.use_counts();
    for index in 0..graph.nodes.len() {
        if !matches!(graph.nodes[index].op, Op::Add(_)) {
            continue;
        }
        let [a, b] = graph.nodes[index].inputs[..] else {
            continue;
        };
        for (sum, scattered) in [(a, b), (b, a)] {
            let same_shape = graph.ty(sum) == graph.ty(scattered);
            if !same_shape || uses[scattered.0] != 1 {
                continue;
            }
            let Some(rest) = scatter_into_zeros(graph, &producers, scattered) else {
                continue;
            };
            let node = &mut graph.nodes[index];
            node.op = ScatterAdd.into();
            node.inputs = vec![sum, rest[0], rest[1]];
            break;
        }
    }
    Ok(())
}

/// Indices and rows, if `value` is their sum into zeros.
fn scatter_into_zeros(
    graph: &Graph,
    producers: &[Option<NodeId>],
    value: ValueId,
) -> Option<[ValueId; 2]> {
    let node = |v: ValueId| producers[v.0].map(|n| &graph.nodes[n.0]);
    let scatter = node(value).filter(|n| matches!(n.op, Op::ScatterAdd(_)))?;
    let [table, indices, rows] = scatter.inputs[..] else {
        return None;
    };
    // A small table of zeros has been folded, a large one is expanded.
    let mut zeros = node(table)?;
    if matches!(zeros.op, Op::Expand(_)) {
        zeros = node(zeros.inputs[0])?;
    }
    match &zeros.op {
        Op::Constant(zero) if zero.values.iter().all(|&v| v == 0.0) => Some([indices, rows]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{DType, Dim, GraphError, Type, ValueId};
    use crate::ops::Graph;
    use crate::ops::scatter::ScatterAdd;
    use crate::passes::testing::rewritten;
    use crate::passes::{constant_folding, dead_code};

    fn scatter_then_clean(graph: &mut Graph) -> Result<(), GraphError> {
        run(graph)?;
        dead_code::run(graph)
    }

    /// A table, and rows scattered into a table filled with `fill`.
    fn scattered(graph: &mut Graph, fill: f64) -> Result<[ValueId; 2], GraphError> {
        let shape = [Dim::from(4), Dim::from(2)];
        let table = graph.input("table", Type::f32(shape.clone()));
        let indices = graph.input("indices", Type::new(DType::I64, [Dim::from(3)]));
        let rows = graph.input("rows", Type::f32([Dim::from(3), Dim::from(2)]));
        let fill = graph.scalar(fill)?;
        let filled = graph.expand(fill, shape)?;
        let scattered = graph.apply1(ScatterAdd, &[filled, indices, rows])?;
        Ok([table, scattered])
    }

    #[test]
    fn a_scatter_into_zeros_that_is_added_goes_into_the_sum() -> Result<(), GraphError> {
        for (swap, folded) in [(false, false), (true, false), (false, true)] {
            let mut graph = Graph::new();
            let [table, scattered] = scattered(&mut graph, 0.0)?;
            if folded {
                constant_folding::run(&mut graph)?;
            }
            let [a, b] = if swap {
                [scattered, table]
            } else {
                [table, scattered]
            };
            let y = graph.add(a, b)?;
            graph.output("y", y);
            assert_eq!(rewritten(&mut graph, scatter_then_clean), ["ScatterAdd"]);
        }
        Ok(())
    }

    #[test]
    fn it_stays_where_another_node_reads_it_or_the_table_is_not_zero() -> Result<(), GraphError> {
        let kept = ["Constant", "Expand", "ScatterAdd", "Add"];
        for (fill, read_twice) in [(0.0, true), (1.0, false)] {
            let mut graph = Graph::new();
            let [table, scattered] = scattered(&mut graph, fill)?;
            let y = graph.add(table, scattered)?;
            graph.output("y", y);
            if read_twice {
                graph.output("scattered", scattered);
            }
            assert_eq!(rewritten(&mut graph, scatter_then_clean), kept);
        }
        Ok(())
    }
}
