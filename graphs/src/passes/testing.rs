//! Runs one pass over a graph and sees that it still computes the same.

use crate::ir::testing::random_feeds;
use crate::ir::{Bindings, GraphError, Symbol, interpret, verify};
use crate::ops::Graph;

const SIZES: Bindings = Bindings::new([
    (Symbol::BATCH, 2),
    (Symbol::LENGTH, 4),
    (Symbol::PREDICTED, 3),
]);

/// Runs `pass` and returns the names of the remaining operators, in order.
pub(super) fn rewritten(
    graph: &mut Graph,
    pass: fn(&mut Graph) -> Result<(), GraphError>,
) -> Vec<&'static str> {
    let feeds = random_feeds(graph, &SIZES, 2, 0);
    let before = interpret(graph, &SIZES, &feeds).expect("outputs before the pass");
    pass(graph).expect("the pass runs");
    verify(graph, "the pass").expect("a valid graph");
    let after = interpret(graph, &SIZES, &feeds).expect("outputs after the pass");
    assert_eq!(before, after);
    let first = graph.clone();
    pass(graph).expect("the pass runs again");
    assert_eq!(*graph, first, "a second run changes the graph again");
    names(graph)
}

/// The operators of a graph, in order.
pub(super) fn names(graph: &Graph) -> Vec<&'static str> {
    graph
        .nodes()
        .iter()
        .map(|n| n.op.operator().name())
        .collect()
}
