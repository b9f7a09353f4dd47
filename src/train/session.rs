//! The session engine for a model: a plan compiled for the provider, and its engine.

use super::execution::Execution;
use super::sized::SizedEngine;
use anyhow::{Context, Result};
use mpnet_graphs::ir::Graph;
use mpnet_graphs::ir::memory::peak;
use mpnet_graphs::lower::portable::{Artifacts, Options, compile};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_plan::{AdamW, Randomness};
use mpnet_runtime::engine::{NamedArray, SessionEngine, SessionOptions};
use mpnet_runtime::library::Loaded;

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
        provider,
        precision: execution.precision(),
        fused_attention: execution.fused_attention(),
        own_kernels: execution.own_kernels(),
        gradient_checkpointing: execution.gradient_checkpointing,
        expose,
    };
    let Artifacts {
        plan, step_graph, ..
    } = compile(config, &options).with_context(|| format!("compiling the model for {provider}"))?;
    let options = SessionOptions {
        reserve: execution
            .largest_batch
            .and_then(|sizes| usize::try_from(peak(&step_graph, &sizes)).ok()),
        device_id: execution.device_id,
        threads: execution.threads,
        allow_cpu_nodes: execution.allow_cpu_nodes,
    };
    let dropout = plan.dropout.clone();
    let (step_sizes, eval_sizes) = (plan.step_sizes.clone(), plan.evaluation_sizes.clone());
    let engine = SizedEngine {
        engine: SessionEngine::new(loaded, plan, options, initial)?,
        objective: config.objective,
        step_sizes,
        eval_sizes,
    };
    Ok((engine, dropout, step_graph))
}
