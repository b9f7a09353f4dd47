//! The session engine's models: training step, evaluation and optimizer in operators that ordinary
//! builds of ONNX Runtime have, each provider with the fused kernels it knows.

pub mod coverage;
mod kernels;
mod layout;
mod optimizer;

pub use crate::onnx::usage::OperatorUse;
pub use kernels::attends;

use super::differentiate::{differentiate, mark, take_gradients};
use super::evaluation;
use super::randomness::randomness;
use crate::ir::{DType, GraphError};
use crate::model::AttentionForm;
use crate::model::task::{Task, loss_graph};
use crate::onnx::model::to_onnx_with_sizes;
use crate::ops::add_gradient::AddGradient;
use crate::ops::matmul::MatMul;
use crate::ops::softmax::SoftmaxGrad;
use crate::ops::{Feature, Graph, Kernel, Op};
use crate::passes::absorb_scale::absorb_scale;
use crate::passes::block_products::{add_into_products, block_products};
use crate::passes::device_dropout::device_dropout;
use crate::passes::expand::expand;
use crate::passes::linear::{add_into_gradients, linear};
use crate::passes::precision::lower_precision;
use crate::passes::softmax_row_sum::softmax_row_sum;
use crate::passes::sum_rows::sum_rows;
use crate::passes::{Pipeline, fusions, lighter_derivatives, tidy};
use layout::Layout;
use mpnet_plan::{
    AdamW, Bf16Form, DropoutSite, KernelId, Link, Models, Plan, Precision, Provider, Randomness,
    names,
};
use std::collections::{BTreeMap, HashMap};

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
    /// Ranks whose gradients are added up. Of several, each takes the sum of their squares from outside where it adds
    /// them up in another order than the others, so that all clip alike.
    pub ranks: usize,
    /// Ranks that share the optimizer, each with the moments of its part; 1 for an optimizer of its own.
    pub shards: usize,
    /// Gradients as further outputs of the step ([`names::exposed_gradient`]), and logits of the
    /// evaluation: for verification, not for training.
    pub expose: bool,
}

impl Options {
    /// Whether the models may use the runtime's kernel.
    fn may_use(&self, kernel: KernelId) -> bool {
        // Where a model has attention as one operator, it was asked for: `form` looks after that. So was the
        // arithmetic of its products.
        let attention = [
            KernelId::TwoStreamAttention,
            KernelId::TwoStreamAttentionGrad,
        ];
        let asked_for = attention.contains(&kernel)
            || (kernel == KernelId::BlockedMatMul && self.precision == Precision::BF16);
        (self.own_kernels || asked_for) && self.provider.has_kernel(kernel, self.precision)
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

    /// Whether the optimizer takes the sum of the gradients' squares from outside.
    fn squares_given(&self) -> bool {
        self.shards > 1 || self.ranks > 1 && !self.may_use(KernelId::SumSquares)
    }

    /// Whether a step says when a gradient is there, for the ranks to begin with it.
    fn tells_of_gradients(&self) -> bool {
        self.ranks > 1 && self.may_use(KernelId::AddGradient)
    }

    /// Whether graphs are fused for kernels of the runtime.
    fn fuses(&self) -> bool {
        self.may_use(KernelId::ResidualNorm)
    }

    /// Where the parameters of `task` lie.
    fn layout(&self, task: &dyn Task) -> Layout {
        let shared = self.provider.info().addresses;
        Layout::new(&task.parameters(), shared, self.expose, self.shards.max(1))
    }

    /// Whether matrix products are by the runtime's kernel.
    fn blocks_products(&self) -> bool {
        self.may_use(KernelId::BlockedMatMul)
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
        simplified(Pipeline::default(), *options).run(&mut graph)?;
        Ok::<_, GraphError>(graph)
    };
    let shared = provider.info().addresses;
    let shards = options.shards.max(1);
    if shards > 1 && !shared {
        return Err(GraphError::Description(format!(
            "the buffers of {provider} have no parts that ranks could share the optimizer by; train without \
             --shard-optimizer"
        )));
    }
    let layout = options.layout(task);
    let step = step_graph(task, options)?;
    let given = options.squares_given();
    let optimizer =
        optimizer::optimizer_graph(&options.optimizer, &layout.segments, shards, given)?;
    let step_model = emit(step.graph.clone(), "mpnet_step")?;
    let eval = emit(eval_graph(task, options)?, "mpnet_eval")?;
    let optimizer = emit(plain(optimizer)?, "mpnet_optimizer")?;
    let squares = match given {
        false => None,
        true => {
            let graph = plain(optimizer::squares_graph(&layout.segments, shards)?)?;
            Some(emit(graph, "mpnet_squares")?)
        }
    };
    let clear = emit(
        plain(optimizer::clear_graph(&layout.segments)?)?,
        "mpnet_clear",
    )?;
    let copy = emit(optimizer::copy_graph()?, "copy")?;
    let mut uses = BTreeMap::new();
    let models = [&step_model, &eval, &optimizer, &clear, &copy];
    for model in models.into_iter().chain(&squares) {
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
                squares: squares.map(|model| model.bytes),
                clear: clear.bytes,
                copy: copy.bytes,
            },
            slots: layout.slots,
            segments: layout.segments,
            shards,
            step_sizes: step_model.sizes,
            evaluation_sizes: eval.sizes,
            dropout: step.randomness,
        },
        operators: uses,
        step_graph: step.graph,
    })
}

/// `pipeline`, and then into operators that the provider has.
fn simplified(pipeline: Pipeline, options: Options) -> Pipeline {
    let scaled = MatMul {
        alpha: 0.5,
        ..MatMul::default()
    };
    pipeline
        .pass("expand", move |graph| expand(graph, &|op| options.has(op)))
        .stage("tidy_expanded", tidy())
        .when(options.has(&scaled.into()), |pipeline| {
            pipeline.pass("absorb_scale", absorb_scale)
        })
        .when(options.may_use(KernelId::SumRows), |pipeline| {
            pipeline.pass("sum_rows", sum_rows)
        })
}

/// `pipeline`, and then into the arithmetic of the step.
fn converted(pipeline: Pipeline, options: Options) -> Pipeline {
    let blocked = options.blocks_products();
    let in_bf16 = options.precision == Precision::BF16;
    let pipeline = pipeline.when(blocked, |pipeline| {
        pipeline.pass("block_products", move |graph| {
            block_products(graph, in_bf16)
        })
    });
    let low = match options.precision {
        Precision::F32 => return pipeline,
        Precision::BF16 if blocked => return pipeline,
        Precision::BF16 if options.provider.info().bf16 == Bf16Form::Hint => return pipeline,
        Precision::BF16 => DType::BF16,
        Precision::F16 => DType::F16,
    };
    pipeline
        .pass("lower_precision", move |graph| lower_precision(graph, low))
        .when(options.may_use(KernelId::Linear), |pipeline| {
            pipeline.pass("linear", linear)
        })
}

/// The passes that make a training step from the graph of a model with its loss and its figures.
///
/// `segments` says in which segment each gradient is gathered.
fn step_pipeline(
    options: Options,
    sites: &[DropoutSite],
    segments: HashMap<String, usize>,
) -> Pipeline {
    let sites = sites.to_vec();
    let pipeline = Pipeline::default()
        .when(options.fuses(), |pipeline| {
            pipeline.stage("fuse", fusions())
        })
        .pass("differentiate", differentiate)
        .stage("tidy", tidy())
        .when(options.fuses(), |pipeline| {
            pipeline.stage(
                "lighten",
                lighter_derivatives(options.gradient_checkpointing),
            )
        })
        .when(!options.has(&SoftmaxGrad.into()), |pipeline| {
            pipeline.pass("softmax_row_sum", softmax_row_sum)
        })
        .when(options.provider.info().dropout_on_device, |pipeline| {
            pipeline.pass("device_dropout", move |graph| device_dropout(graph, &sites))
        });
    let pipeline = simplified(pipeline, options);
    converted(pipeline, options)
        .pass("accumulate", move |graph| {
            accumulate(graph, &options, &segments)
        })
        .when(options.blocks_products(), |pipeline| {
            pipeline.pass("add_into_products", add_into_products)
        })
        .when(options.may_use(KernelId::LinearGradient), |pipeline| {
            pipeline.pass("add_into_gradients", add_into_gradients)
        })
        .stage("tidy_step", tidy())
}

/// The passes that make an evaluation from the graph of its loss and figures.
pub fn eval_passes(options: Options) -> Pipeline {
    let pipeline = evaluation::passes().when(options.fuses(), |pipeline| {
        pipeline.stage("fuse", fusions())
    });
    let pipeline = simplified(pipeline, options);
    converted(pipeline, options).stage("tidy_evaluation", tidy())
}

/// The passes that make the step of `task`.
///
/// # Errors
/// Where the configuration is not valid.
pub fn step_passes(task: &dyn Task, options: &Options) -> Result<Pipeline, GraphError> {
    let model = loss_graph(task, true, options.form(task))?;
    let segments = options.layout(task).segment_of_each();
    Ok(step_pipeline(*options, &model.sites, segments))
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
    let outputs: Vec<_> = model.step_outputs().collect();
    let mut graph = model.graph;
    for (name, value) in outputs {
        graph.output(name, value);
    }
    if options.gradient_checkpointing {
        mark(&mut graph, &model.checkpoints);
    }
    let segments = options.layout(task).segment_of_each();
    step_pipeline(*options, &model.sites, segments).run(&mut graph)?;
    let randomness = randomness(&graph, options.provider, model.sites);
    Ok(Step { graph, randomness })
}

/// The evaluation for a target and a precision.
///
/// # Errors
/// Where the configuration is not valid or the target lacks an operator.
pub fn eval_graph(task: &dyn Task, options: &Options) -> Result<Graph, GraphError> {
    let form = options.form(task);
    let mut graph = evaluation::figures(task, options.expose, form)?;
    eval_passes(*options).run(&mut graph)?;
    Ok(graph)
}

/// Adds every gradient to what has been gathered so far, each in the segment that `segments` names.
fn accumulate(
    graph: &mut Graph,
    options: &Options,
    segments: &HashMap<String, usize>,
) -> Result<(), GraphError> {
    for (parameter, grad) in take_gradients(graph)? {
        let parameter = graph.label(parameter);
        let Link { input, output } = gradient(&parameter);
        let so_far = graph.input(input, graph.ty(grad).clone());
        let sum = match segments.get(&parameter) {
            Some(&segment) if options.tells_of_gradients() => {
                graph.apply1(AddGradient { segment }, &[so_far, grad])?
            }
            Some(_) | None => graph.add(so_far, grad)?,
        };
        graph.output(output, sum);
        if options.expose {
            graph.output(names::exposed_gradient(&parameter), sum);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
