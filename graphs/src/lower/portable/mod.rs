//! The session engine's models: training step, evaluation and optimizer in operators that ordinary
//! builds of ONNX Runtime have, each provider with the fused kernels it knows.

mod layout;
mod optimizer;
mod target;

pub use layout::{Layout, Segment, Slot};
pub use optimizer::{COPY, SegmentNames, new_name, scalars};
pub use target::{Target, UnknownTarget};

use super::ort_training::{self, CORRECT, GRADIENT_NORM, LOSS_SCALE, LOSS_SUM, TRAIN_OUTPUTS};
use crate::autodiff;
use crate::ir::{Dim, Graph, GraphError, Type, ValueId};
use crate::model::DropoutSite;
use crate::model::config::ModelConfig;
use crate::model::parameters::parameters;
use crate::model::pretraining::pretraining;
use crate::onnx::model::to_onnx_with;
use crate::optimizer::adamw::AdamW;
use crate::passes;
use crate::passes::expand::expand;

/// Arithmetic of the step. Parameters, accumulated gradients, the loss and the optimizer are always
/// f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 throughout.
    #[default]
    F32,
    /// Matrix products and activations in bf16.
    BF16,
    /// Matrix products and activations in f16; the loss has to be scaled up.
    F16,
}

impl Precision {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "fp32",
            Precision::BF16 => "bf16",
            Precision::F16 => "fp16",
        }
    }
}

/// What to compile beside the model itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    pub optimizer: AdamW,
    pub target: Target,
    pub precision: Precision,
    /// Gradients as further outputs `grad.<parameter>` of the step, and logits of the evaluation:
    /// for verification, not for training.
    pub expose: bool,
}

/// The compiled models and what a caller has to know of them.
pub struct Artifacts {
    /// Batch, masks, parameters and gradients in; figures and new gradients out.
    pub step: Vec<u8>,
    pub eval: Vec<u8>,
    /// Segments in, new segments and the gradient norm out.
    pub optimizer: Vec<u8>,
    /// Gradient segments of zeros.
    pub clear: Vec<u8>,
    /// One vector copied.
    pub copy: Vec<u8>,
    pub layout: Layout,
    /// Masks that the step takes as inputs.
    pub dropout: Vec<DropoutSite>,
}

/// The step's input that holds a parameter's gradient so far; its output is [`new_name`] of it.
pub fn gradient_name(parameter: &str) -> String {
    format!("gradient.{parameter}")
}

/// Compiles the session engine's models for `config`.
///
/// # Errors
/// Where the configuration is not valid or the target lacks an operator.
pub fn compile(config: &ModelConfig, options: &Options) -> Result<Artifacts, GraphError> {
    let target = options.target;
    let check = |op: &crate::ops::Op| match target.has(op) {
        true => Ok(()),
        false => Err(format!("the target {target} has no kernel for it")),
    };
    let emit = |mut graph: Graph, name: &str| {
        lower(&mut graph, target)?;
        let inputs = [graph.inputs(), graph.parameters()].concat();
        to_onnx_with(&graph, name, &inputs, &check)
    };
    let layout = Layout::new(&parameters(config));
    let (step, dropout) = step_graph(config, options)?;
    let eval = ort_training::eval_graph(config, options.expose)?;
    let optimizer = optimizer::optimizer_graph(
        &options.optimizer,
        &layout,
        options.precision,
        GRADIENT_NORM,
    )?;
    Ok(Artifacts {
        step: emit(step, "mpnet_step")?,
        eval: emit(eval, "mpnet_eval")?,
        optimizer: emit(optimizer, "mpnet_optimizer")?,
        clear: emit(optimizer::clear_graph(&layout)?, "mpnet_clear")?,
        copy: emit(optimizer::copy_graph()?, "copy")?,
        layout,
        dropout,
    })
}

/// Rewrites `graph` into operators that `target` has.
fn lower(graph: &mut Graph, target: Target) -> Result<(), GraphError> {
    passes::run(graph, passes::PASSES)?;
    expand(graph, &|op| target.has(op))?;
    passes::run(graph, passes::PASSES)
}

/// The training step and its dropout masks.
///
/// # Errors
/// Where the configuration is not valid.
pub fn step_graph(
    config: &ModelConfig,
    options: &Options,
) -> Result<(Graph, Vec<DropoutSite>), GraphError> {
    let model = pretraining(config, true)?;
    let mut graph = model.graph;
    let scale = graph.input(LOSS_SCALE, Type::f32([Dim::from(1)]));
    let scale = graph.reshape(scale, [])?;
    let loss = graph.mul(model.loss_sum, scale)?;
    let grads = autodiff::gradients(&mut graph, loss)?;
    graph.output(TRAIN_OUTPUTS[0], loss);
    graph.output(LOSS_SUM, model.loss_sum);
    graph.output(CORRECT, model.correct);
    accumulate(&mut graph, &grads, options.expose)?;
    Ok((graph, model.sites))
}

/// Adds every gradient to what its parameter has gathered so far.
fn accumulate(
    graph: &mut Graph,
    grads: &[Option<ValueId>],
    expose: bool,
) -> Result<(), GraphError> {
    for (parameter, grad) in graph.parameters().to_vec().into_iter().zip(grads) {
        let name = graph.label(parameter);
        let grad = grad.ok_or_else(|| GraphError::Derivative {
            op: "parameter",
            reason: format!("the loss does not depend on '{name}'"),
        })?;
        let so_far = gradient_name(&name);
        let buffer = graph.input(&so_far, graph.ty(parameter).clone());
        let sum = graph.add(buffer, grad)?;
        graph.output(new_name(&so_far), sum);
        if expose {
            graph.output(format!("grad.{name}"), sum);
        }
    }
    Ok(())
}
