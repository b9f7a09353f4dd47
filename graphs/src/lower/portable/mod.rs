//! The session engine's models: training step, evaluation and optimizer in operators that ordinary
//! builds of ONNX Runtime have, each provider with the fused kernels it knows.

pub mod coverage;
mod layout;
mod optimizer;
mod target;

pub use layout::{Layout, Segment, Slot};
pub use optimizer::{COPY, SegmentNames, new_name, scalars};
pub use target::{Target, UnknownTarget};

pub use crate::onnx::emitter::SizeInput;
pub use crate::onnx::usage::OperatorUse;
pub use crate::passes::device_dropout::Factor;

use super::ort_training::{self, CORRECT, GRADIENT_NORM, LOSS_SCALE, LOSS_SUM, TRAIN_OUTPUTS};
use crate::autodiff;
use crate::ir::memory::{execution_order, memory};
use crate::ir::{Bindings, DType, Dim, Graph, GraphError, Type, ValueId, verify};
use crate::model::config::ModelConfig;
use crate::model::parameters::parameters;
use crate::model::pretraining::pretraining_with;
use crate::model::{AttentionForm, DropoutSite};
use crate::onnx::model::to_onnx_with_sizes;
use crate::ops::Op;
use crate::ops::matmul::MatMul;
use crate::ops::softmax_grad::SoftmaxGrad;
use crate::optimizer::adamw::AdamW;
use crate::passes;
use crate::passes::absorb_scale::absorb_scale;
use crate::passes::device_dropout::device_dropout;
use crate::passes::expand::expand;
use crate::passes::precision::lower_precision;
use crate::passes::softmax_row_sum::softmax_row_sum;
use std::collections::BTreeMap;

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
    /// Whether attention is one operator, where the target has a kernel of it.
    pub fused_attention: bool,
    /// Whether what lies between matrix products, and the optimizer, are kernels of the runtime, where it
    /// has them.
    pub own_kernels: bool,
    /// Whether layers are computed once more by the derivative, which then keeps less.
    pub gradient_checkpointing: bool,
    /// Gradients as further outputs `grad.<parameter>` of the step, and logits of the evaluation:
    /// for verification, not for training.
    pub expose: bool,
}

impl Options {
    /// Whether there is a kernel of `op` as it is emitted.
    fn has(&self, op: &Op) -> bool {
        self.target.has(op)
            || (self.own_kernels && self.target.brings(op))
            || (self.on_processor() && matches!(op, Op::GeluGrad(_) | Op::LayerNormGrad(_)))
    }

    /// Whether the runtime's kernels for the processor are used.
    fn on_processor(&self) -> bool {
        self.target == Target::Cpu && self.precision == Precision::F32
    }

    /// Whether the target's graphs are fused for kernels of the runtime.
    fn fuses(&self) -> bool {
        self.own_kernels && self.target.has_own_kernels()
    }

    /// How attention is written down for `config`.
    fn form(&self, config: &ModelConfig) -> AttentionForm {
        match self.fused_attention && self.target.attends(config, self.precision) {
            true => AttentionForm::Fused,
            false => AttentionForm::Expanded,
        }
    }
}

/// The compiled models and what a caller has to know of them.
pub struct Artifacts {
    /// Batch, masks, parameters and gradients in; figures and new gradients out.
    pub step: Vec<u8>,
    pub eval: Vec<u8>,
    /// Further inputs of the step.
    pub step_sizes: Vec<SizeInput>,
    /// Further inputs of the evaluation.
    pub eval_sizes: Vec<SizeInput>,
    /// Segments in, new segments and the gradient norm out.
    pub optimizer: Vec<u8>,
    /// Gradient segments of zeros.
    pub clear: Vec<u8>,
    /// One vector copied.
    pub copy: Vec<u8>,
    /// What the models need kernels for, with the number of nodes.
    pub operators: BTreeMap<OperatorUse, usize>,
    pub layout: Layout,
    /// What the step takes for its dropout.
    pub randomness: Randomness,
    /// The step before it was written down, for figures about it.
    pub step_graph: Graph,
}

impl Artifacts {
    /// Bytes of intermediate values that a step holds at most, for a batch of these sizes.
    pub fn step_memory(&self, sizes: &Bindings) -> u64 {
        let order = execution_order(&self.step_graph);
        memory(&self.step_graph, &order, sizes).peak
    }
}

/// The step's inputs for dropout.
#[derive(Debug, Clone, PartialEq)]
pub enum Randomness {
    /// A mask of bytes for each site.
    Masks(Vec<DropoutSite>),
    /// Factors from which the device computes the masks.
    Factors(Vec<Factor>),
}

/// Before a parameter's name: its gradient as an output of a step that exposes it.
pub const EXPOSED_GRADIENT: &str = "grad.";

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
    let check = |op: &Op| match options.has(op) {
        true => Ok(()),
        false => Err(format!("the target {target} has no kernel for it")),
    };
    let emit = |graph: Graph, name: &str| {
        let inputs = [graph.inputs(), graph.parameters()].concat();
        to_onnx_with_sizes(&graph, name, &inputs, &check, options.on_processor())
    };
    let plain = |mut graph: Graph| {
        simplify(&mut graph, options)?;
        Ok::<_, GraphError>(graph)
    };
    let layout = Layout::new(&parameters(config), target.has_addresses());
    let step = step_graph(config, options)?;
    let optimizer = optimizer::optimizer_graph(&options.optimizer, &layout, GRADIENT_NORM)?;
    let step_model = emit(step.graph.clone(), "mpnet_step")?;
    let eval = emit(eval_graph(config, options)?, "mpnet_eval")?;
    let optimizer = emit(plain(optimizer)?, "mpnet_optimizer")?;
    let clear = emit(plain(optimizer::clear_graph(&layout)?)?, "mpnet_clear")?;
    let copy = emit(optimizer::copy_graph()?, "copy")?;
    let mut uses = BTreeMap::new();
    for model in [&step_model, &eval, &optimizer, &clear, &copy] {
        for (used, count) in &model.operators {
            *uses.entry(used.clone()).or_insert(0) += count;
        }
    }
    Ok(Artifacts {
        step: step_model.bytes,
        step_sizes: step_model.sizes,
        eval: eval.bytes,
        eval_sizes: eval.sizes,
        optimizer: optimizer.bytes,
        clear: clear.bytes,
        copy: copy.bytes,
        operators: uses,
        layout,
        randomness: step.randomness,
        step_graph: step.graph,
    })
}

/// Rewrites `graph` into operators that the target has.
fn simplify(graph: &mut Graph, options: &Options) -> Result<(), GraphError> {
    expand(graph, &|op| options.has(op))?;
    passes::run(graph, passes::PASSES)?;
    let scaled = MatMul {
        alpha: 0.5,
        ..MatMul::default()
    };
    if !options.has(&scaled.into()) {
        return Ok(());
    }
    absorb_scale(graph)?;
    verify(graph, "absorb_scale")
}

/// Rewrites an f32 graph to work in `precision`.
fn convert(graph: &mut Graph, precision: Precision) -> Result<(), GraphError> {
    let low = match precision {
        Precision::F32 => return Ok(()),
        Precision::BF16 => DType::BF16,
        Precision::F16 => DType::F16,
    };
    lower_precision(graph, low)?;
    verify(graph, "lower_precision")
}

/// A training step ready to emit.
pub struct Step {
    pub graph: Graph,
    pub randomness: Randomness,
}

/// The training step for a target and a precision.
///
/// # Errors
/// Where the configuration is not valid or the target lacks an operator.
pub fn step_graph(config: &ModelConfig, options: &Options) -> Result<Step, GraphError> {
    let model = pretraining_with(config, true, options.form(config))?;
    let mut graph = model.graph;
    // What the loss and the figures are is said by outputs while the graph is rewritten.
    graph.output(LOSS_SUM, model.loss_sum);
    graph.output(CORRECT, model.correct);
    if options.gradient_checkpointing {
        for (index, checkpoint) in model.checkpoints.iter().enumerate() {
            graph.output(format!("checkpoint.{index}"), *checkpoint);
        }
    }
    if options.fuses() {
        passes::run(&mut graph, passes::FUSIONS)?;
    }
    let [(_, loss_sum), (_, correct), ref checkpoints @ ..] = graph.outputs.split_off(0)[..] else {
        unreachable!("two outputs were named")
    };
    let checkpoints: Vec<ValueId> = checkpoints.iter().map(|(_, v)| *v).collect();
    let scale = graph.input(LOSS_SCALE, Type::f32([Dim::from(1)]));
    let scale = graph.reshape(scale, [])?;
    let loss = graph.mul(loss_sum, scale)?;
    let grads = autodiff::gradients_from_checkpoints(&mut graph, loss, &checkpoints)?;
    graph.output(TRAIN_OUTPUTS[0], loss);
    graph.output(LOSS_SUM, loss_sum);
    graph.output(CORRECT, correct);
    let figures = graph.outputs().len();
    for (parameter, grad) in graph.parameters().to_vec().into_iter().zip(grads) {
        let name = graph.label(parameter);
        let grad = grad.ok_or_else(|| GraphError::Derivative {
            op: "parameter",
            reason: format!("the loss does not depend on '{name}'"),
        })?;
        graph.output(format!("{EXPOSED_GRADIENT}{name}"), grad);
    }
    passes::run(&mut graph, passes::PASSES)?;
    if options.fuses() {
        passes::run(&mut graph, passes::LIGHTER_DERIVATIVES)?;
    }
    if !options.target.has(&SoftmaxGrad.into()) {
        softmax_row_sum(&mut graph)?;
        verify(&graph, "softmax_row_sum")?;
    }
    let randomness = match options.target.dropout_on_device() {
        true => Randomness::Factors(device_dropout(&mut graph, &model.sites)?),
        false => Randomness::Masks(model.sites),
    };
    simplify(&mut graph, options)?;
    convert(&mut graph, options.precision)?;
    let gradients = graph.outputs.split_off(figures);
    accumulate(&mut graph, gradients, options.expose)?;
    passes::run(&mut graph, passes::PASSES)?;
    Ok(Step { graph, randomness })
}

/// The evaluation for a target and a precision.
fn eval_graph(config: &ModelConfig, options: &Options) -> Result<Graph, GraphError> {
    let form = options.form(config);
    let mut graph = ort_training::eval_graph_with(config, options.expose, form)?;
    if options.fuses() {
        passes::run(&mut graph, passes::FUSIONS)?;
    }
    simplify(&mut graph, options)?;
    convert(&mut graph, options.precision)?;
    passes::run(&mut graph, passes::PASSES)?;
    Ok(graph)
}

/// Adds every gradient, an output, to what has been gathered so far.
fn accumulate(
    graph: &mut Graph,
    gradients: Vec<(String, ValueId)>,
    expose: bool,
) -> Result<(), GraphError> {
    for (output, grad) in gradients {
        let name = output.trim_start_matches(EXPOSED_GRADIENT);
        let so_far = gradient_name(name);
        let buffer = graph.input(&so_far, graph.ty(grad).clone());
        let sum = graph.add(buffer, grad)?;
        graph.output(new_name(&so_far), sum);
        if expose {
            graph.output(output, sum);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
