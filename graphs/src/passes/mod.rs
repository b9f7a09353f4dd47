//! Graph rewrites, one a file, in one ordered list for each target.

mod common_subexpressions;
mod dead_code;

use crate::ir::{Graph, GraphError, verify};

/// A rewrite that keeps what a graph computes.
pub struct Pass {
    pub name: &'static str,
    run: fn(&mut Graph) -> Result<(), GraphError>,
}

/// The passes of every target, in order.
pub const PASSES: &[Pass] = &[
    Pass {
        name: "dead_code",
        run: dead_code::run,
    },
    Pass {
        name: "common_subexpressions",
        run: common_subexpressions::run,
    },
];

/// Runs `passes` in order and verifies the graph after each.
///
/// # Errors
/// Naming the pass that failed or broke the graph.
pub fn run(graph: &mut Graph, passes: &[Pass]) -> Result<(), GraphError> {
    for pass in passes {
        (pass.run)(graph)?;
        verify(graph, pass.name)?;
    }
    Ok(())
}
