//! Graph rewrites, one a file, and pipelines of them.

pub mod absorb_scale;
pub mod block_products;
mod common_subexpressions;
mod constant_folding;
mod dead_code;
pub mod device_dropout;
pub mod expand;
mod fuse_bias_gelu;
mod fuse_cross_entropy;
mod fuse_residual_norm;
mod join_slices;
pub mod linear;
mod matching;
mod pack_attention;
mod pad_with_zeros;
pub mod precision;
mod recompute_activation;
mod recompute_normal;
mod scatter_into_sum;
pub mod softmax_row_sum;
pub mod sum_rows;
#[cfg(test)]
mod testing;

use crate::ir::{GraphError, verify};
use crate::ops::Graph;
use std::fmt;

type Rewrite = Box<dyn Fn(&mut Graph) -> Result<(), GraphError>>;

/// A step from one graph to the next.
pub struct Pass {
    name: String,
    run: Rewrite,
}

impl Pass {
    /// The pass of this name that does `run`.
    pub fn new(
        name: impl Into<String>,
        run: impl Fn(&mut Graph) -> Result<(), GraphError> + 'static,
    ) -> Pass {
        Pass {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// Passes in order: what makes the graph of a target from that of a model. Conditions decide which passes
/// are in it when it is made; printed, it is their names, one a line.
#[derive(Default)]
pub struct Pipeline {
    passes: Vec<Pass>,
}

impl Pipeline {
    /// These passes alone, as [`Pipeline::stage`].
    pub fn of(stage: &str, passes: Vec<Pass>) -> Pipeline {
        Pipeline::default().stage(stage, passes)
    }

    /// One pass more.
    pub fn pass(
        mut self,
        name: &str,
        run: impl Fn(&mut Graph) -> Result<(), GraphError> + 'static,
    ) -> Pipeline {
        self.passes.push(Pass::new(name, run));
        self
    }

    /// Several passes more, under names that begin with that of a stage.
    pub fn stage(mut self, stage: &str, passes: Vec<Pass>) -> Pipeline {
        self.passes.extend(passes.into_iter().map(|pass| Pass {
            name: format!("{stage}/{}", pass.name),
            run: pass.run,
        }));
        self
    }

    /// What `further` adds, where `condition` holds.
    pub fn when(self, condition: bool, further: impl FnOnce(Pipeline) -> Pipeline) -> Pipeline {
        if condition { further(self) } else { self }
    }

    /// The names of its passes, in order; no two are the same.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.passes.iter().map(|pass| pass.name.as_str())
    }

    /// Runs every pass and verifies the graph after it.
    ///
    /// # Errors
    /// Naming the pass that failed or broke the graph.
    pub fn run(&self, graph: &mut Graph) -> Result<(), GraphError> {
        for pass in &self.passes {
            (pass.run)(graph)?;
            verify(graph, &pass.name)?;
        }
        Ok(())
    }
}

impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.names().try_for_each(|name| writeln!(f, "{name}"))
    }
}

/// What every graph is cleaned up with, in order.
pub fn tidy() -> Vec<Pass> {
    vec![
        // Autodiff leaves what only unwanted gradients needed.
        Pass::new("dead_code", dead_code::run),
        Pass::new("constant_folding", constant_folding::run),
        // Equal nodes first, so that a value's uses are all counted.
        Pass::new("common_subexpressions", common_subexpressions::run),
        Pass::new("scatter_into_sum", scatter_into_sum::run),
        // What the rewrites no longer read.
        Pass::new("unread", dead_code::run),
    ]
}

/// What turns a model into the fused operators that the runtime has kernels of, in order, before it is
/// differentiated.
pub fn fusions() -> Vec<Pass> {
    vec![
        // While keys and values still are products of rows of one tensor.
        Pass::new("pack_attention", pack_attention::run),
        Pass::new("residual_norm", fuse_residual_norm::run),
        Pass::new("bias_gelu", fuse_bias_gelu::run),
        Pass::new("cross_entropy", fuse_cross_entropy::run),
        // What the fused operators replaced would be differentiated too.
        Pass::new("unread", dead_code::run),
    ]
}

/// What makes derivatives cheaper and lets them hold less memory where there are kernels of the runtime, in
/// order, after differentiation. Where layers are computed again (`checkpointing`), their parts are at hand.
pub fn lighter_derivatives(checkpointing: bool) -> Vec<Pass> {
    // While slices' derivatives still are pads.
    let mut passes = vec![
        Pass::new("join_slices", join_slices::run),
        Pass::new("pad_with_zeros", pad_with_zeros::run),
    ];
    if !checkpointing {
        passes.extend([
            Pass::new("recompute_activation", recompute_activation::run),
            Pass::new("recompute_normal", recompute_normal::run),
        ]);
    }
    passes.push(Pass::new("unread", dead_code::run));
    passes
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
        let forget = Pipeline::default().pass("forget", |graph| {
            graph.nodes.clear();
            Ok(())
        });
        let error = forget.run(&mut graph).expect_err("an invalid graph");
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
        Pipeline::of("tidy", tidy())
            .run(&mut graph)
            .expect("passes run");
        assert_eq!(names(&graph), ["Constant", "Mul", "Add"]);
    }
}
