//! The session engine's models: training step, evaluation and optimizer in operators that ordinary
//! builds of ONNX Runtime have, each provider with the fused kernels it knows.

pub mod coverage;
mod kernels;
mod layout;
mod optimizer;

pub use crate::onnx::usage::OperatorUse;
pub use kernels::attends;

use super::ort_training;
use crate::autodiff;
use crate::ir::{DType, GraphError, Type, ValueId, verify};
use crate::model::AttentionForm;
use crate::model::task::{Task, loss_graph};
use crate::onnx::model::to_onnx_with_sizes;
use crate::ops::Graph;
use crate::ops::matmul::MatMul;
use crate::ops::softmax::SoftmaxGrad;
use crate::ops::{Feature, Kernel, Op};
use crate::passes;
use crate::passes::absorb_scale::absorb_scale;
use crate::passes::device_dropout::device_dropout;
use crate::passes::expand::expand;
use crate::passes::precision::lower_precision;
use crate::passes::softmax_row_sum::softmax_row_sum;
use layout::Layout;
use mpnet_plan::{
    AdamW, Dim, KernelId, Link, Models, Plan, Precision, Provider, Randomness, names,
};
use std::collections::BTreeMap;

/// What to compile beside the model itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// What the optimizer is made for.
    pub optimizer: AdamW,
    /// Where the models run.
    pub provider: Provider,
    /// The arithmetic of step and evaluation.
    pub precision: Precision,
    /// Whether attention is one operator, where the provider has a kernel of it.
    pub fused_attention: bool,
    /// Whether what lies between matrix products, and the optimizer, are kernels of the runtime, where it
    /// has them.
    pub own_kernels: bool,
    /// Whether layers are computed once more by the derivative, which then keeps less.
    pub gradient_checkpointing: bool,
    /// Gradients as further outputs of the step ([`names::exposed_gradient`]), and logits of the
    /// evaluation: for verification, not for training.
    pub expose: bool,
}

impl Options {
    /// Whether the models may use the runtime's kernel.
    fn may_use(&self, kernel: KernelId) -> bool {
        let asked_for = match kernel {
            // Where a model has them it was asked for: `form` looks after that.
            KernelId::TwoStreamAttention | KernelId::TwoStreamAttentionGrad => true,
            _ => self.own_kernels,
        };
        asked_for && self.provider.has_kernel(kernel, self.precision)
    }

    /// The runtime's kernels that the models may use.
    fn kernels(&self) -> Vec<KernelId> {
        let all = KernelId::ALL.iter().copied();
        all.filter(|kernel| self.may_use(*kernel)).collect()
    }

    /// Whether there is a kernel of `op` as it is emitted.
    fn has(&self, op: &Op) -> bool {
        let info = self.provider.info();
        let kernels = op.operator().kernels();
        kernels.into_iter().any(|kernel| match kernel {
            Kernel::Standard => true,
            Kernel::Feature(Feature::ScatterElementsAdds) => info.scatter_adds,
            Kernel::Feature(Feature::ScatterNdAdds) => info.scatter_adds && info.scatter_nd_adds,
            Kernel::Feature(Feature::LayerNormStatistics) => info.layer_norm_statistics,
            Kernel::Contrib(name) => info.contrib.contains(&name),
            Kernel::Training(_) => false,
            Kernel::Own(kernel) => self.may_use(kernel),
        })
    }

    /// Whether graphs are fused for kernels of the runtime.
    fn fuses(&self) -> bool {
        self.may_use(KernelId::ResidualNorm)
    }

    /// How attention is written down for `task`.
    fn form(&self, task: &dyn Task) -> AttentionForm {
        if self.fused_attention && attends(self.provider, task, self.precision) {
            AttentionForm::Fused
        } else {
            AttentionForm::Expanded
        }
    }
}

/// The plan of a training run and what else is known of its models.
pub struct Artifacts {
    /// What the runtime executes.
    pub plan: Plan,
    /// What the models need kernels for, with the number of nodes.
    pub operators: BTreeMap<OperatorUse, usize>,
    /// The step before it was written down, for figures about it.
    pub step_graph: Graph,
}

/// A parameter's gradient in the step: what has been gathered so far, and what replaces it.
fn gradient(parameter: &str) -> Link {
    replaced(format!("gradient.{parameter}"))
}

/// An input and the output that replaces it.
fn replaced(input: String) -> Link {
    Link {
        output: format!("{input}.new"),
        input,
    }
}

/// Compiles the session engine's models for `task`.
///
/// # Errors
/// Where the configuration is not valid or the target lacks an operator.
pub fn compile(task: &dyn Task, options: &Options) -> Result<Artifacts, GraphError> {
    let provider = options.provider;
    let check = |op: &Op| match options.has(op) {
        true => Ok(()),
        false => Err(format!("the target {provider} has no kernel for it")),
    };
    let emit = |graph: Graph, name: &str| {
        let inputs = [graph.inputs(), graph.parameters()].concat();
        to_onnx_with_sizes(&graph, name, &inputs, &check, options.kernels())
    };
    let plain = |mut graph: Graph| {
        simplify(&mut graph, options)?;
        Ok::<_, GraphError>(graph)
    };
    let shared = provider.info().addresses;
    let layout = Layout::new(&task.parameters(), shared, options.expose);
    let step = step_graph(task, options)?;
    let optimizer = optimizer::optimizer_graph(&options.optimizer, &layout.segments)?;
    let step_model = emit(step.graph.clone(), "mpnet_step")?;
    let eval = emit(eval_graph(task, options)?, "mpnet_eval")?;
    let optimizer = emit(plain(optimizer)?, "mpnet_optimizer")?;
    let clear = emit(
        plain(optimizer::clear_graph(&layout.segments)?)?,
        "mpnet_clear",
    )?;
    let copy = emit(optimizer::copy_graph()?, "copy")?;
    let mut uses = BTreeMap::new();
    for model in [&step_model, &eval, &optimizer, &clear, &copy] {
        for (used, count) in &model.operators {
            *uses.entry(used.clone()).or_insert(0) += count;
        }
    }
    Ok(Artifacts {
        plan: Plan {
            provider,
            precision: options.precision,
            optimizer: options.optimizer,
            models: Models {
                step: step_model.bytes,
                evaluation: eval.bytes,
                optimizer: optimizer.bytes,
                clear: clear.bytes,
                copy: copy.bytes,
            },
            slots: layout.slots,
            segments: layout.segments,
            step_sizes: step_model.sizes,
            evaluation_sizes: eval.sizes,
            dropout: step.randomness,
        },
        operators: uses,
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
pub fn step_graph(task: &dyn Task, options: &Options) -> Result<Step, GraphError> {
    let model = loss_graph(task, true, options.form(task))?;
    let figures: Vec<_> = model.all_figures().collect();
    let count = figures.len();
    let mut graph = model.graph;
    // What the loss and the figures are is said by outputs while the graph is rewritten.
    for (name, figure) in figures {
        graph.output(name, figure);
    }
    if options.gradient_checkpointing {
        for (index, checkpoint) in model.checkpoints.iter().enumerate() {
            graph.output(format!("checkpoint.{index}"), *checkpoint);
        }
    }
    if options.fuses() {
        passes::run(&mut graph, passes::FUSIONS)?;
    }
    let mut figures = graph.outputs.split_off(0);
    let checkpoints = figures.split_off(count);
    let checkpoints: Vec<ValueId> = checkpoints.iter().map(|(_, v)| *v).collect();
    let loss_sum = figures[0].1;
    let scale = graph.input(names::LOSS_SCALE, Type::f32([Dim::from(1)]));
    let scale = graph.reshape(scale, [])?;
    let loss = graph.mul(loss_sum, scale)?;
    let grads = autodiff::gradients_from_checkpoints(&mut graph, loss, &checkpoints)?;
    graph.output(names::LOSS, loss);
    graph.outputs.append(&mut figures);
    let figures = graph.outputs().len();
    for (parameter, grad) in graph.parameters().to_vec().into_iter().zip(grads) {
        let name = graph.label(parameter);
        let grad = grad.ok_or_else(|| GraphError::Derivative {
            op: "parameter",
            reason: format!("the loss does not depend on '{name}'"),
        })?;
        graph.output(names::exposed_gradient(&name), grad);
    }
    passes::run(&mut graph, passes::PASSES)?;
    if options.fuses() {
        passes::run(&mut graph, passes::LIGHTER_DERIVATIVES)?;
    }
    if !options.has(&SoftmaxGrad.into()) {
        softmax_row_sum(&mut graph)?;
        verify(&graph, "softmax_row_sum")?;
    }
    let randomness = match options.provider.info().dropout_on_device {
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
fn eval_graph(task: &dyn Task, options: &Options) -> Result<Graph, GraphError> {
    let form = options.form(task);
    let mut graph = ort_training::eval_graph_with(task, options.expose, form)?;
    if options.fuses() {
        passes::run(&mut graph, passes::FUSIONS)?;
    }
    simplify(&mut graph, options)?;
    convert(&mut graph, options.precision)?;
    passes::run(&mut graph, passes::PASSES)?;
    Ok(graph)
}

/// Adds every gradient, an output in the order of the parameters, to what has been gathered so far.
fn accumulate(
    graph: &mut Graph,
    gradients: Vec<(String, ValueId)>,
    expose: bool,
) -> Result<(), GraphError> {
    let parameters = graph.parameters().to_vec();
    for (parameter, (exposed, grad)) in parameters.into_iter().zip(gradients) {
        let Link { input, output } = gradient(&graph.label(parameter));
        let so_far = graph.input(input, graph.ty(grad).clone());
        let sum = graph.add(so_far, grad)?;
        graph.output(output, sum);
        if expose {
            graph.output(exposed, sum);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
