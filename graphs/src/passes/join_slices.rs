//! The gradients of two slices that make up a whole become the whole by being put together, instead of
//! being filled up with zeros and added.

use super::matching::{Matching, replace};
use crate::ir::{GraphError, ValueId};
use crate::ops::Graph;
use crate::ops::Op;
use crate::ops::concat::Concat;

pub(super) fn run(graph: &mut Graph) -> Result<(), GraphError> {
    let matching = Matching::new(graph);
    let found = graph.nodes.iter().map(|node| {
        let (Op::Add(_), &[a, b]) = (&node.op, &node.inputs[..]) else {
            return None;
        };
        [(a, b), (b, a)].into_iter().find_map(|(first, second)| {
            let axis = whole(graph, &matching, first, second)?;
            let parts = [first, second].map(|v| matching.made_by(v).map(|n| n.inputs[0]));
            Some((Concat { axis }.into(), vec![parts[0]?, parts[1]?]))
        })
    });
    let found = found.collect();
    replace(graph, found)
}

/// The axis along which `second`'s rows begin where those of `first` end, both filled up with zeros.
fn whole(graph: &Graph, matching: &Matching, first: ValueId, second: ValueId) -> Option<usize> {
    let (a, b) = (matching.made_by(first)?, matching.made_by(second)?);
    let (Op::Pad(before), Op::Pad(behind)) = (&a.op, &b.op) else {
        return None;
    };
    let len = |v: ValueId| graph.ty(v).shape.get(before.axis);
    let fits = before.axis == behind.axis
        && before.before.is(0)
        && behind.after.is(0)
        && len(a.inputs[0]) == Some(&behind.before)
        && len(b.inputs[0]) == Some(&before.after);
    fits.then_some(before.axis)
}

#[cfg(test)]
mod tests {
    use super::run;
    use crate::ir::{Dim, GraphError, Symbol, Type};
    use crate::ops::Graph;
    use crate::ops::slice::Pad;
    use crate::passes::dead_code;
    use crate::passes::testing::rewritten;

    fn join_then_clean(graph: &mut Graph) -> Result<(), GraphError> {
        run(graph)?;
        dead_code::run(graph)
    }

    #[test]
    fn parts_of_a_whole_are_put_together_and_others_are_not() -> Result<(), GraphError> {
        for (before, left) in [
            (Dim::from(Symbol::LENGTH), &["Concat"][..]),
            (Dim::from(0), &["Pad", "Pad", "Add"]),
        ] {
            let mut graph = Graph::new();
            let rows = |n: Dim| Type::f32([n, 2.into()]);
            let a = graph.input("a", rows(Symbol::LENGTH.into()));
            let b = graph.input("b", rows(Symbol::PREDICTED.into()));
            let front = Pad {
                axis: 0,
                before: 0.into(),
                after: Symbol::PREDICTED.into(),
            };
            let back = Pad {
                axis: 0,
                after: Dim::from(Symbol::LENGTH) - before.clone(),
                before,
            };
            let (a, b) = (graph.apply1(front, &[a])?, graph.apply1(back, &[b])?);
            let sum = graph.add(b, a)?;
            graph.output("sum", sum);
            assert_eq!(rewritten(&mut graph, join_then_clean), left);
        }
        Ok(())
    }
}
