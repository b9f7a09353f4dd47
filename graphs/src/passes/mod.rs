//! Graph rewrites, one a file, in one ordered list.

pub mod absorb_scale;
mod common_subexpressions;
mod constant_folding;
mod dead_code;
pub mod device_dropout;
pub mod expand;
mod fuse_bias_gelu;
mod fuse_cross_entropy;
mod fuse_residual_norm;
mod join_slices;
mod matching;
mod pack_attention;
mod pad_with_zeros;
pub mod precision;
mod recompute_activation;
mod recompute_normal;
mod scatter_into_sum;
pub mod softmax_row_sum;
#[cfg(test)]
mod testing;

use crate::ir::{GraphError, verify};
use crate::ops::Graph;

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

/// What turns a model into the fused operators that the runtime has kernels of, in order, before it is
/// differentiated.
pub const FUSIONS: &[Pass] = &[
    // While keys and values still are products of rows of one tensor.
    Pass {
        name: "pack_attention",
        run: pack_attention::run,
    },
    Pass {
        name: "fuse_residual_norm",
        run: fuse_residual_norm::run,
    },
    Pass {
        name: "fuse_bias_gelu",
        run: fuse_bias_gelu::run,
    },
    Pass {
        name: "fuse_cross_entropy",
        run: fuse_cross_entropy::run,
    },
    // What the fused operators replaced would be differentiated too.
    Pass {
        name: "dead_code",
        run: dead_code::run,
    },
];

/// What makes derivatives cheaper and lets them hold less memory where there are kernels of the runtime, in
/// order, after differentiation.
pub const LIGHTER_DERIVATIVES: &[Pass] = &[
    // While slices' derivatives still are pads.
    Pass {
        name: "join_slices",
        run: join_slices::run,
    },
    Pass {
        name: "pad_with_zeros",
        run: pad_with_zeros::run,
    },
    Pass {
        name: "recompute_activation",
        run: recompute_activation::run,
    },
    Pass {
        name: "recompute_normal",
        run: recompute_normal::run,
    },
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Dim, Type};
    use testing::names;

    #[test]
    fn a_pass_that_breaks_the_graph_is_named() {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(2)]));
        let y = graph.relu(x).expect("floats");
        graph.output("y", y);
        let forget = Pass {
            name: "forget",
            run: |graph| {
                graph.nodes.clear();
                Ok(())
            },
        };
        let error = run(&mut graph, &[forget]).expect_err("an invalid graph");
        assert_eq!(
            error.to_string(),
            "after forget: output 'y' is never computed"
        );
    }

    #[test]
    fn passes_build_on_each_other() {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(2)]));
        let build = |graph: &mut Graph| -> Result<(), GraphError> {
            let (one, two) = (graph.scalar(1.0)?, graph.scalar(2.0)?);
            let three = graph.add(one, two)?;
            let known = graph.scalar(3.0)?;
            // The same product once the sum is folded.
            let (a, b) = (graph.mul(x, three)?, graph.mul(x, known)?);
            let sum = graph.add(a, b)?;
            graph.output("sum", sum);
            Ok(())
        };
        build(&mut graph).expect("a graph");
        run(&mut graph, PASSES).expect("passes run");
        assert_eq!(names(&graph), ["Constant", "Mul", "Add"]);
    }
}
