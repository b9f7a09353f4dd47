//! From a model's configuration to a running engine: compile, write the artifacts, load them.

use super::execution::Execution;
use super::session;
use anyhow::{Context, Result};
use mpnet_graphs::ir::memory::peak;
use mpnet_graphs::ir::{Bindings, Graph};
use mpnet_graphs::lower::ort_training::{Artifacts, Options, compile};
use mpnet_graphs::lower::portable::attends;
use mpnet_graphs::model::AttentionForm;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::parameters;
use mpnet_plan::{Precision, Randomness, names};
use mpnet_runtime::checkpoint_file;
use mpnet_runtime::engine::training_api::hidden_parameter;
use mpnet_runtime::engine::{Engine, NamedArray, TrainingApiEngine, TrainingApiOptions};
use mpnet_runtime::library::Loaded;
use mpnet_runtime::scratch::Scratch;
use std::path::Path;

/// Writes the four files of the training API into `folder`.
///
/// # Errors
/// Where a file cannot be written or the parameters are not encodable.
pub fn write_artifacts(folder: &Path, artifacts: &Artifacts, initial: &[NamedArray]) -> Result<()> {
    let hidden: Vec<NamedArray> = artifacts
        .hidden
        .iter()
        .map(|name| hidden_parameter(name))
        .collect();
    let all: Vec<&NamedArray> = initial.iter().chain(&hidden).collect();
    let checkpoint = checkpoint_file::write(&all, None).context("encoding the checkpoint")?;
    for (name, bytes) in [
        ("training_model.onnx", artifacts.training.as_slice()),
        ("eval_model.onnx", &artifacts.eval),
        ("optimizer_model.onnx", &artifacts.optimizer),
        ("checkpoint", &checkpoint),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// An engine with its model, and what the model's training graph takes for its dropout.
pub struct Running {
    pub engine: Box<dyn Engine>,
    pub dropout: Randomness,
    /// Engine, provider and arithmetic, in words.
    pub description: String,
    /// What a micro-batch computes.
    step_graph: Graph,
}

impl Running {
    /// Bytes of intermediate values that a micro-batch of these sizes holds at most.
    pub fn step_memory(&self, sizes: &Bindings) -> u64 {
        peak(&self.step_graph, sizes)
    }
}

/// Compiles `config` and starts it as `execution` says with the parameters `initial`.
///
/// The artifacts for the training API pass through a temporary folder, as the training API reads its checkpoint from a
/// file.
///
/// # Errors
/// Where the configuration is not valid or ONNX Runtime refuses the artifacts.
pub fn start(
    loaded: &Loaded,
    config: &ModelConfig,
    options: &Options,
    initial: &[NamedArray],
    execution: &Execution,
) -> Result<Running> {
    if execution.uses_sessions(loaded, config)? {
        let (engine, dropout, step_graph) = session::start(
            loaded,
            config,
            &options.optimizer,
            options.expose,
            initial,
            execution,
        )?;
        return Ok(Running {
            engine: Box::new(engine),
            dropout,
            description: format!(
                "session engine on {} in {}",
                execution.provider(),
                execution.precision().name()
            ),
            step_graph,
        });
    }
    let provider = execution.provider();
    let fused = execution.fused_attention() && attends(provider, config, Precision::F32);
    let attention = if fused {
        AttentionForm::Fused
    } else {
        AttentionForm::Expanded
    };
    let artifacts = compile(config, options, provider, attention).context("compiling the model")?;
    let folder = Scratch::new().with_context(|| {
        let parent = std::env::temp_dir();
        format!(
            "creating a folder for the artifacts in {}",
            parent.display()
        )
    })?;
    write_artifacts(folder.path(), &artifacts, initial)?;
    let parameters = parameters(config);
    let engine = TrainingApiEngine::new(
        loaded,
        TrainingApiOptions {
            artifacts: folder.path().to_owned(),
            parameters: parameters.iter().map(|p| p.name.clone()).collect(),
            undecayed: parameters
                .iter()
                .filter(|p| !p.decays())
                .map(|p| p.name.clone())
                .collect(),
            hidden: artifacts.hidden,
            weight_decay: options.optimizer.weight_decay,
            gradient_norm_output: names::GRADIENT_NORM.to_owned(),
            provider,
            device_id: execution.device_id,
            threads: execution.threads,
        },
    )?;
    Ok(Running {
        engine: Box::new(engine),
        dropout: artifacts.dropout,
        description: format!("training-api engine on {provider} in fp32"),
        step_graph: artifacts.step_graph,
    })
}
