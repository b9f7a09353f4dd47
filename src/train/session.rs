//! The session engine for a model: its models compiled for the provider and handed over by name.

use super::execution::Execution;
use super::sized::SizedEngine;
use anyhow::{Context, Result};
use mpnet_graphs::ir::Graph;
use mpnet_graphs::lower::ort_training::{GRADIENT_NORM, LOSS_SCALE, TRAIN_OUTPUTS};
use mpnet_graphs::lower::portable::{
    COPY, EXPOSED_GRADIENT, Options, Precision, Randomness, SegmentNames, Target, compile,
    gradient_name, new_name, scalars,
};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::optimizer::adamw::AdamW;
use mpnet_runtime::engine::{
    NamedArray, SessionEngine, SessionModels, SessionNames, SessionOptions, Slot,
};
use mpnet_runtime::library::Loaded;
use mpnet_runtime::provider::Provider;

/// The provider as the compiler knows it.
pub fn target(provider: Provider) -> Target {
    match provider {
        Provider::Cpu => Target::Cpu,
        Provider::Cuda => Target::Cuda,
        Provider::Rocm => Target::Rocm,
        Provider::MigraphX => Target::MigraphX,
        Provider::DirectMl => Target::DirectMl,
        Provider::OpenVino => Target::OpenVino,
        Provider::WebGpu => Target::WebGpu,
    }
}

/// Compiles `config` for the provider of `execution` and starts it with the parameters `initial`. Returns
/// the engine, what its step takes for dropout, and the step's graph.
///
/// # Errors
/// Where the configuration is not valid or the build refuses the models.
pub fn start(
    loaded: &Loaded,
    config: &ModelConfig,
    optimizer: &AdamW,
    expose: bool,
    initial: &[NamedArray],
    execution: &Execution,
) -> Result<(SizedEngine, Randomness, Graph)> {
    let provider = execution.provider();
    let options = Options {
        optimizer: *optimizer,
        target: target(provider),
        precision: execution.precision(),
        fused_attention: execution.fused_attention(),
        own_kernels: execution.own_kernels(),
        gradient_checkpointing: execution.gradient_checkpointing,
        expose,
    };
    let artifacts =
        compile(config, &options).with_context(|| format!("compiling the model for {provider}"))?;
    let reserve = execution
        .largest_batch
        .and_then(|sizes| usize::try_from(artifacts.step_memory(&sizes)).ok());
    let options = SessionOptions {
        reserve,
        models: SessionModels {
            step: artifacts.step,
            evaluation: artifacts.eval,
            optimizer: artifacts.optimizer,
            clear: artifacts.clear,
            copy: artifacts.copy,
        },
        names: names(),
        segments: artifacts.layout.segments.iter().map(|s| s.len).collect(),
        parameters: artifacts
            .layout
            .slots
            .into_iter()
            .map(|slot| Slot {
                name: slot.name,
                shape: slot.shape,
                segment: slot.segment,
                offset: slot.offset,
            })
            .collect(),
        beta1: optimizer.beta1,
        beta2: optimizer.beta2,
        weight_decay: optimizer.weight_decay,
        scale_loss: execution.precision() == Precision::F16,
        provider,
        device_id: execution.device_id,
        threads: execution.threads,
        allow_cpu_nodes: execution.allow_cpu_nodes,
    };
    let engine = SizedEngine {
        engine: SessionEngine::new(loaded, options, initial)?,
        objective: config.objective,
        step_sizes: artifacts.step_sizes,
        eval_sizes: artifacts.eval_sizes,
    };
    Ok((engine, artifacts.randomness, artifacts.step_graph))
}

/// What the compiler calls the models' values.
fn names() -> SessionNames {
    let segment = SegmentNames::new(0);
    let prefix = "segment.0.";
    let kind = |name: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
    SessionNames {
        loss_scale: LOSS_SCALE.to_owned(),
        loss: TRAIN_OUTPUTS[0].to_owned(),
        exposed_gradient_prefix: EXPOSED_GRADIENT.to_owned(),
        gradient_norm: GRADIENT_NORM.to_owned(),
        step_size: scalars::STEP_SIZE.to_owned(),
        decay: scalars::DECAY.to_owned(),
        second_correction: scalars::SECOND_CORRECTION.to_owned(),
        gradient_scale: scalars::GRADIENT_SCALE.to_owned(),
        zero: scalars::ZERO.to_owned(),
        gradient_prefix: gradient_name(""),
        new_suffix: new_name(""),
        segment_prefix: prefix.replace('0', "{}"),
        parameters: kind(&segment.parameter),
        gradients: kind(&segment.gradient),
        first_moments: kind(&segment.first_moment),
        second_moments: kind(&segment.second_moment),
        copy: (COPY.0.to_owned(), COPY.1.to_owned()),
    }
}
