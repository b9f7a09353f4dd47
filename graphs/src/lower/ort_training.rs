//! The artifacts of ONNX Runtime's training API, in the layout that its own tools emit.

use super::differentiate::{differentiate, mark, take_gradients};
use super::evaluation::eval_graph_with;
use super::randomness::randomness;
use crate::ir::{DType, GraphError, Type, ValueId};
use crate::model::AttentionForm;
use crate::model::task::{Task, loss_graph};
use crate::onnx::model::to_onnx;
use crate::ops::accumulate::Accumulate;
use crate::ops::reduce::SumSquares;
use crate::ops::{Graph, Op};
use crate::optimizer::adamw::{NORM_CARRIER, NORM_EPSILON, NORM_WEIGHT, optimizer_model};
use crate::passes::device_dropout::device_dropout;
use crate::passes::expand::expand;
use crate::passes::{Pipeline, tidy};
use mpnet_plan::{AdamW, Dim, DropoutSite, KernelId, Precision, Provider, Randomness, names};

/// What to compile beside the model itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    pub optimizer: AdamW,
    /// Whether layers are computed once more by the derivative, which then keeps less.
    pub gradient_checkpointing: bool,
    /// Gradients as further outputs of the training model ([`names::exposed_gradient`]), and logits of
    /// the evaluation model: for verification, not for training.
    pub expose: bool,
}

/// The compiled files and what a caller has to know of them.
pub struct Artifacts {
    /// `training_model.onnx`
    pub training: Vec<u8>,
    /// `eval_model.onnx`
    pub eval: Vec<u8>,
    /// `optimizer_model.onnx`
    pub optimizer: Vec<u8>,
    /// Parameters `[1]` of the training model that are not the model's: they serve the optimizer.
    pub hidden: Vec<String>,
    /// What the training model takes for its dropout.
    pub dropout: Randomness,
    /// The training model before it was written down, for figures about it.
    pub step_graph: Graph,
}

/// Compiles the training API's artifacts for `task`, to run on `provider`; where attention is one
/// operator, only with the runtime of this project.
///
/// # Errors
/// Where the configuration is not valid.
pub fn compile(
    task: &dyn Task,
    options: &Options,
    provider: Provider,
    attention: AttentionForm,
) -> Result<Artifacts, GraphError> {
    let (training, inputs, dropout) = training_graph_with(task, options, provider, attention)?;
    let mut eval = eval_graph_with(task, options.expose, attention)?;
    // The training API gives every parameter of the training model to the evaluation model as well.
    eval.parameter(NORM_CARRIER, Type::f32([Dim::from(1)]));
    let eval_inputs = [eval.inputs(), eval.parameters()].concat();
    let emit = |graph: &Graph, name: &str, inputs: &[ValueId]| {
        to_onnx(
            graph,
            name,
            inputs,
            &|_| Ok(()),
            kernels(provider, attention),
        )
    };
    Ok(Artifacts {
        training: emit(&training, "mpnet_training", &inputs)?,
        eval: emit(&eval, "mpnet_eval", &eval_inputs)?,
        optimizer: optimizer_model(&options.optimizer)?,
        hidden: vec![NORM_CARRIER.to_owned()],
        dropout,
        step_graph: training,
    })
}

/// The runtime's kernels in artifacts that only its own engine runs anyway.
fn kernels(provider: Provider, attention: AttentionForm) -> Vec<KernelId> {
    let norm = KernelId::LayerNormalization;
    match attention {
        AttentionForm::Fused if provider.has_kernel(norm, Precision::F32) => vec![norm],
        AttentionForm::Fused | AttentionForm::Expanded => Vec::new(),
    }
}

/// The optimised training graph, its inputs in the order of the training API, and what it takes
/// for its dropout.
///
/// # Errors
/// Where the configuration is not valid.
pub fn training_graph(
    task: &dyn Task,
    expose: bool,
    provider: Provider,
) -> Result<(Graph, Vec<ValueId>, Randomness), GraphError> {
    let options = Options {
        optimizer: AdamW::default(),
        gradient_checkpointing: false,
        expose,
    };
    training_graph_with(task, &options, provider, AttentionForm::Expanded)
}

/// [`training_graph`] with attention in the form asked for.
fn training_graph_with(
    task: &dyn Task,
    options: &Options,
    provider: Provider,
    attention: AttentionForm,
) -> Result<(Graph, Vec<ValueId>, Randomness), GraphError> {
    let model = loss_graph(task, true, attention)?;
    let pipeline = pipeline(options, provider, &model.sites);
    let outputs: Vec<_> = model.step_outputs().collect();
    let mut graph = model.graph;
    for (name, value) in outputs {
        graph.output(name, value);
    }
    if options.gradient_checkpointing {
        mark(&mut graph, &model.checkpoints);
    }
    pipeline.run(&mut graph)?;
    let randomness = randomness(&graph, provider, model.sites);
    // Those of the user, parameters, buffers, and whether they are reset.
    let (mut user, mut buffers, mut reset) = (Vec::new(), Vec::new(), Vec::new());
    for input in graph.inputs() {
        let name = graph.label(*input);
        if name == RESET {
            reset.push(*input);
        } else if name.ends_with(BUFFER) {
            buffers.push(*input);
        } else {
            user.push(*input);
        }
    }
    let inputs = [&user, graph.parameters(), &buffers, &reset].concat();
    Ok((graph, inputs, randomness))
}

/// The passes that make the training graph on `provider` from that of the model with its loss.
///
/// # Errors
/// Where the configuration is not valid.
pub fn training_passes(
    task: &dyn Task,
    options: &Options,
    provider: Provider,
) -> Result<Pipeline, GraphError> {
    let model = loss_graph(task, true, AttentionForm::Expanded)?;
    Ok(pipeline(options, provider, &model.sites))
}

fn pipeline(options: &Options, provider: Provider, sites: &[DropoutSite]) -> Pipeline {
    let (expose, sites) = (options.expose, sites.to_vec());
    Pipeline::default()
        .pass("differentiate", differentiate)
        .when(provider.info().dropout_on_device, |pipeline| {
            pipeline
                .pass("device_dropout", move |graph| device_dropout(graph, &sites))
                // Its kernels are those of session engines.
                .pass("expand_dropout", |graph| {
                    expand(graph, &|op| !matches!(op, Op::FactorDropout(_)))
                })
        })
        .pass("accumulate", move |graph| accumulate(graph, expose))
        .stage("tidy", tidy())
        // ScatterND has several threads on the CPU, and two that add to one row at once lose an addition.
        .pass("expand_scatter", |graph| {
            expand(graph, &|op| !matches!(op, Op::ScatterAdd(_)))
        })
}

/// Input that says whether gradients are stored anew instead of added.
const RESET: &str = "lazy_reset_grad";
/// Ends the name of a gradient's buffer, behind its parameter's.
const BUFFER: &str = "_grad.accumulation.buffer";

/// Adds every gradient to its buffer, and takes the norm of all.
fn accumulate(graph: &mut Graph, expose: bool) -> Result<(), GraphError> {
    let gradients = take_gradients(graph)?;
    let flag = Type::new(DType::Bool, [Dim::from(1)]);
    let reset = graph.input(RESET, flag);
    let mut flags = Vec::new();
    let mut exposed = Vec::new();
    let mut squares: Option<ValueId> = None;
    for (parameter, grad) in gradients {
        let name = graph.label(parameter);
        let ty = graph.ty(parameter).clone();
        let buffer = graph.input(format!("{name}{BUFFER}"), ty);
        let outputs = graph.apply(Accumulate, &[buffer, grad, reset])?;
        flags.push((format!("{name}_grad.accumulation.out"), outputs[0]));
        exposed.push((names::exposed_gradient(&name), outputs[1]));
        let square = graph.apply1(SumSquares, &[outputs[1]])?;
        squares = Some(match squares {
            Some(sum) => graph.add(sum, square)?,
            None => square,
        });
    }
    if let Some(sum) = squares {
        let norm = graph.sqrt(sum)?;
        graph.output(names::GRADIENT_NORM, norm);
        flags.push(carry(graph, norm)?);
    }
    if expose {
        for (name, value) in exposed {
            // A copy: the buffer itself belongs to the training API.
            let zero = graph.scalar(0.0)?;
            let copy = graph.add(value, zero)?;
            graph.output(name, copy);
        }
    }
    for (name, value) in flags {
        graph.output(name, value);
    }
    Ok(())
}

/// Makes `norm` the gradient of [`NORM_CARRIER`]: gives the flag with its name.
fn carry(graph: &mut Graph, norm: ValueId) -> Result<(String, ValueId), GraphError> {
    let ty = Type::f32([Dim::from(1)]);
    let carrier = graph.parameter(NORM_CARRIER, ty.clone());
    let buffer = graph.input(format!("{NORM_CARRIER}{BUFFER}"), ty);
    let epsilon = graph.scalar(f64::from(NORM_EPSILON))?;
    let weight = graph.scalar(f64::from(NORM_WEIGHT))?;
    let gradient = graph.add(norm, epsilon)?;
    let gradient = graph.mul(gradient, weight)?;
    let gradient = graph.reshape(gradient, [Dim::from(1)])?;
    // The training API keeps a parameter that no node reads on the processor, where the optimizer of
    // a GPU cannot reach it.
    let zero = graph.scalar(0.0)?;
    let nothing = graph.mul(carrier, zero)?;
    let gradient = graph.add(gradient, nothing)?;
    // The norm is of all micro-batches so far: it replaces that of the one before.
    let always = graph.constant(DType::Bool, &[1], [1.0])?;
    let outputs = graph.apply(Accumulate, &[buffer, gradient, always])?;
    let flag = format!("{NORM_CARRIER}_grad.accumulation.out");
    Ok((flag, outputs[0]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lower::evaluation::eval_graph;
    use crate::model::config::ModelConfig;
    use crate::model::task::{CORRECT, LOGITS, LOSS_SUM};
    use crate::model::testing::{smallest, tiny};
    use crate::onnx::conformance::{check, graph_of, listing};
    use crate::ops::Kernel;
    use crate::ops::testing::kernels_of;

    fn options(expose: bool) -> Options {
        let optimizer = AdamW {
            beta1: 0.9,
            beta2: 0.98,
            epsilon: 1e-6,
            weight_decay: 0.01,
            clip_grad_norm: 1.0,
        };
        Options {
            optimizer,
            gradient_checkpointing: false,
            expose,
        }
    }

    fn value_names(values: &[crate::onnx::proto::ValueInfoProto]) -> Vec<String> {
        values.iter().map(|v| v.name.clone()).collect()
    }

    #[test]
    fn the_training_graph_of_the_smallest_model() -> Result<(), GraphError> {
        let config = ModelConfig {
            dropout: 0.0,
            activation_dropout: 0.0,
            ..smallest()
        };
        insta::assert_snapshot!(training_graph(&config, false, Provider::Cpu)?.0);
        Ok(())
    }

    #[test]
    fn the_onnx_nodes_of_the_smallest_models() -> Result<(), GraphError> {
        let artifacts = compile(
            &smallest(),
            &options(false),
            Provider::Cpu,
            AttentionForm::Expanded,
        )?;
        insta::assert_snapshot!("onnx_training", listing(&artifacts.training));
        insta::assert_snapshot!("onnx_eval", listing(&artifacts.eval));
        insta::assert_snapshot!("onnx_optimizer", listing(&artifacts.optimizer));
        Ok(())
    }

    /// The layout of the training API's own tools: user inputs, parameters, buffers, reset flag;
    /// the user's outputs, loss first, then the accumulation flags.
    #[test]
    fn inputs_and_outputs_stand_in_the_training_apis_order() -> Result<(), GraphError> {
        let artifacts = compile(
            &tiny(),
            &options(true),
            Provider::Cpu,
            AttentionForm::Expanded,
        )?;
        let model: Vec<String> = crate::model::parameters::parameters(&tiny())
            .into_iter()
            .map(|p| p.name)
            .collect();
        let parameters = [&model[..], &[NORM_CARRIER.to_owned()]].concat();
        let each = |prefix: &str, suffix: &str| -> Vec<String> {
            let around = |name| format!("{prefix}{name}{suffix}");
            parameters.iter().map(around).collect()
        };
        let batch = ["input_ids", "positions", "targets", "attention_mask"].map(String::from);
        let Randomness::Masks(sites) = &artifacts.dropout else {
            panic!("the CPU takes masks");
        };
        let masks: Vec<String> = sites.iter().map(|s| s.name.clone()).collect();
        assert_eq!(masks.len(), 1 + 2 * 4);

        let training = graph_of(&artifacts.training);
        let scale = [names::LOSS_SCALE.to_owned()];
        let buffers = each("", "_grad.accumulation.buffer");
        let reset = ["lazy_reset_grad".to_owned()];
        let expected = [&batch[..], &masks, &scale, &parameters, &buffers, &reset].concat();
        assert_eq!(value_names(&training.input), expected);
        let user = [names::LOSS, LOSS_SUM, CORRECT, names::GRADIENT_NORM].map(String::from);
        let flags = each("", "_grad.accumulation.out");
        let exposed: Vec<String> = model
            .iter()
            .map(|name| names::exposed_gradient(name))
            .collect();
        let expected = [&user[..], &exposed, &flags].concat();
        assert_eq!(value_names(&training.output), expected);

        let eval = graph_of(&artifacts.eval);
        assert_eq!(value_names(&eval.input), [&batch[..], &parameters].concat());
        assert_eq!(value_names(&eval.output), [LOSS_SUM, CORRECT, LOGITS]);

        let optimizer = graph_of(&artifacts.optimizer);
        let expected = [
            "learning_rate",
            "step",
            "params",
            "gradients",
            "first_order_moments",
            "second_order_moments",
        ];
        assert_eq!(value_names(&optimizer.input), expected);
        assert_eq!(optimizer.output.len(), 1);
        Ok(())
    }

    #[test]
    fn every_model_conforms_to_onnx_and_is_the_same_each_time() -> Result<(), GraphError> {
        for normalize_before in [false, true] {
            let config = ModelConfig {
                normalize_before,
                ..tiny()
            };
            let (first, second) = (
                compile(
                    &config,
                    &options(true),
                    Provider::Cpu,
                    AttentionForm::Expanded,
                )?,
                compile(
                    &config,
                    &options(true),
                    Provider::Cpu,
                    AttentionForm::Expanded,
                )?,
            );
            let step = kernels_of(&first.step_graph);
            let eval = kernels_of(&eval_graph(&config, true)?);
            let training = |k: &Kernel| matches!(k, Kernel::Training(_));
            assert!(step.iter().any(training) && !eval.iter().any(training));
            let optimizer = ["AdamWOptimizer", "InplaceClipGradNorm"].map(Kernel::Training);
            for (a, b, kernels) in [
                (&first.training, &second.training, &step[..]),
                (&first.eval, &second.eval, &eval),
                (&first.optimizer, &second.optimizer, &optimizer),
            ] {
                check(a, kernels);
                assert!(a == b, "a second compilation gives other bytes");
            }
        }
        Ok(())
    }

    #[test]
    fn a_device_takes_factors_instead_of_masks() -> Result<(), GraphError> {
        let artifacts = compile(
            &tiny(),
            &options(false),
            Provider::Cuda,
            AttentionForm::Expanded,
        )?;
        let Randomness::Factors(factors) = &artifacts.dropout else {
            panic!("masks would be copied to the device");
        };
        let inputs = value_names(&graph_of(&artifacts.training).input);
        for factor in factors {
            assert!(inputs.contains(&factor.name), "{}", factor.name);
        }
        assert!(
            !inputs.iter().any(|name| name.contains("mask.")),
            "{inputs:?}"
        );
        check(&artifacts.training, &kernels_of(&artifacts.step_graph));
        Ok(())
    }

    #[test]
    fn an_invalid_model_is_refused() {
        let config = ModelConfig {
            encoder_layers: 0,
            ..tiny()
        };
        let error = compile(
            &config,
            &options(false),
            Provider::Cpu,
            AttentionForm::Expanded,
        )
        .map(|_| ())
        .unwrap_err();
        assert_eq!(error.to_string(), "encoder_layers must be at least 1");
    }

    #[test]
    fn no_dropout_means_no_masks_and_no_clipping_no_clip_node() -> Result<(), GraphError> {
        let config = ModelConfig {
            dropout: 0.0,
            attention_dropout: 0.0,
            activation_dropout: 0.0,
            ..tiny()
        };
        let mut options = options(false);
        options.optimizer.clip_grad_norm = 0.0;
        let artifacts = compile(&config, &options, Provider::Cpu, AttentionForm::Expanded)?;
        assert_eq!(artifacts.dropout, Randomness::Masks(Vec::new()));
        assert!(!listing(&artifacts.training).contains("Dropout"));
        assert!(!listing(&artifacts.optimizer).contains("Clip"));
        Ok(())
    }
}
