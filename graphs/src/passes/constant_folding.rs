//! Computes nodes whose inputs are all constants, where the result is small and has no symbolic
//! size.

use crate::ir::{Array, Bindings, GraphError, ValueId};
use crate::ops::Graph;
use crate::ops::{Op, constant::Constant};
use std::collections::HashMap;

/// Above this many elements a result is left to be computed: it would only grow the file.
const MAX_ELEMENTS: usize = 4096;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    // No folded node reads a symbolic size, so any will do.
    let sizes = Bindings::new([]);
    let mut known: HashMap<ValueId, Array> = HashMap::new();
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let operator = node.op.operator();
        let fail = |reason: String| GraphError::Evaluate {
            op: operator.name(),
            reason,
        };
        if let Op::Constant(_) = node.op {
            let value = operator.evaluate(&sizes, &[]).map_err(fail)?;
            known.extend(node.outputs.iter().copied().zip(value));
            continue;
        }
        let inputs: Option<Vec<&Array>> = node.inputs.iter().map(|v| known.get(v)).collect();
        let [output] = node.outputs[..] else { continue };
        let ty = graph.ty(output);
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| d.as_const()).collect();
        let (Some(inputs), Some(shape)) = (inputs, shape) else {
            continue;
        };
        // A constant cut at a symbolic place has a constant shape and no constant value.
        let symbolic = operator.dims().iter().any(|d| d.as_const().is_none());
        if symbolic || shape.iter().product::<usize>() > MAX_ELEMENTS {
            continue;
        }
        let Some(array) = operator.evaluate(&sizes, &inputs).map_err(fail)?.pop() else {
            continue;
        };
        let constant = Constant {
            dtype: ty.dtype,
            shape,
            values: array.iter().copied().collect(),
        };
        known.insert(output, array);
        let node = &mut graph.nodes[index];
        node.op = constant.into();
        node.inputs.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{MAX_ELEMENTS, run};
    use crate::ir::{DType, Dim, GraphError, Symbol, Type};
    use crate::ops::Graph;
    use crate::passes::dead_code;
    use crate::passes::testing::rewritten;

    fn fold(graph: &mut Graph) -> Result<(), GraphError> {
        run(graph)?;
        dead_code::run(graph)
    }

    #[test]
    fn constants_of_constants_are_computed() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(3)]));
        let indices = graph.iota(3.into())?;
        let two = graph.index(2)?;
        let small = graph.less(indices, two)?;
        let numbers = graph.cast(small, DType::F32)?; // [1, 1, 0]
        let y = graph.mul(x, numbers)?;
        graph.output("y", y);
        assert_eq!(rewritten(&mut graph, fold), ["Constant", "Mul"]);
        Ok(())
    }

    #[test]
    fn large_results_are_left_to_be_computed() -> Result<(), GraphError> {
        for (size, kept) in [
            (MAX_ELEMENTS, vec!["Constant"]),
            (MAX_ELEMENTS + 1, vec!["Constant", "Expand"]),
        ] {
            let mut graph = Graph::new();
            let one = graph.scalar(1.0)?;
            let ones = graph.expand(one, [size.into()])?;
            graph.output("ones", ones);
            assert_eq!(rewritten(&mut graph, fold), kept);
        }
        Ok(())
    }

    #[test]
    fn what_depends_on_a_batchs_sizes_is_not_folded() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        graph.input("x", Type::f32([Dim::from(Symbol::PREDICTED)]));
        let table = graph.constant(DType::F32, &[5], [1.0, 2.0, 3.0, 4.0, 5.0])?;
        let predicted = Dim::from(Symbol::PREDICTED);
        // One element whatever the sizes, but not the same one.
        let end = predicted.clone() + 1.into();
        let last = graph.slice(table, 0, predicted.clone(), end)?;
        graph.output("last", last);
        let all = graph.iota(predicted)?;
        graph.output("all", all);
        assert_eq!(rewritten(&mut graph, fold), ["Constant", "Slice", "Iota"]);
        Ok(())
    }
}
