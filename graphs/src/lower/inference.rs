//! Graphs without derivatives, parameters included as initializers or left as inputs.

use crate::ir::{Graph, GraphError};
use crate::onnx::model::to_onnx;
use crate::ops::Kernel;
use crate::passes;

/// Optimises `graph` and serialises it with its inputs followed by its parameters as inputs.
///
/// # Errors
/// Where a pass breaks the graph or it needs kernels of training builds.
pub fn lower(mut graph: Graph, name: &str) -> Result<Vec<u8>, GraphError> {
    passes::run(&mut graph, passes::PASSES)?;
    let inputs = [graph.inputs(), graph.parameters()].concat();
    to_onnx(&graph, name, &inputs, Kernel::Contrib)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ir::{Dim, Type};
    use crate::model::pretraining::masked_lm;
    use crate::model::testing::smallest;
    use crate::onnx::conformance::{check, listing};
    use crate::ops::relu_grad::ReluGrad;

    #[test]
    fn the_single_stream_encoder_needs_no_training_build() -> Result<(), GraphError> {
        let model = lower(masked_lm(&smallest())?, "mpnet")?;
        assert_eq!(check(&model), Kernel::Contrib);
        insta::assert_snapshot!(listing(&model));
        assert!(model == lower(masked_lm(&smallest())?, "mpnet")?);
        Ok(())
    }

    #[test]
    fn gradient_kernels_are_refused() -> Result<(), GraphError> {
        let mut graph = Graph::new();
        let x = graph.input("x", Type::f32([Dim::from(2)]));
        let y = graph.apply1(ReluGrad, &[x, x])?;
        graph.output("y", y);
        let error = lower(graph, "relu").unwrap_err().to_string();
        let expected = "emitting ReluGrad: it needs Training kernels, this target has Contrib ones";
        assert_eq!(error, expected);
        Ok(())
    }
}
