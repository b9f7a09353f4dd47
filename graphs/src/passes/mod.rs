//! Graph rewrites, one a file, in one ordered list.

pub mod absorb_scale;
mod common_subexpressions;
mod constant_folding;
mod dead_code;
pub mod device_dropout;
pub mod expand;
pub mod precision;
mod scatter_into_sum;
pub mod softmax_row_sum;

use crate::ir::{Graph, GraphError, verify};

/// A rewrite that keeps what a graph computes.
pub struct Pass {
    pub name: &'static str,
    run: fn(&mut Graph) -> Result<(), GraphError>,
}

/// The passes of every target, in order.
pub const PASSES: &[Pass] = &[
    // Autodiff leaves what only unwanted gradients needed.
    Pass {
        name: "dead_code",
        run: dead_code::run,
    },
    Pass {
        name: "constant_folding",
        run: constant_folding::run,
    },
    // Equal nodes first, so that a value's uses are all counted.
    Pass {
        name: "common_subexpressions",
        run: common_subexpressions::run,
    },
    Pass {
        name: "scatter_into_sum",
        run: scatter_into_sum::run,
    },
    // What the rewrites no longer read.
    Pass {
        name: "dead_code",
        run: dead_code::run,
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
