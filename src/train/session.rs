//! The session engine for a model: a plan compiled for the provider, and its engine.

use super::engine::{ModelCosts, Running};
use super::placement::Placement;
use anyhow::{Context, Result};
use mpnet_graphs::ir::memory::peak;
use mpnet_graphs::lower::ort_training;
use mpnet_graphs::lower::portable::{Artifacts, Options, compile};
use mpnet_graphs::model::Task;
use mpnet_runtime::collective::Collective;
use mpnet_runtime::engine::{NamedArray, SessionEngine, SessionOptions};
use mpnet_runtime::library::Loaded;
use std::sync::Arc;

/// Compiles `task` for the provider of `placement` and starts it with the parameters `initial`, on one of the ranks of
/// `group`.
///
/// # Errors
/// Where the configuration is not valid or the build refuses the models.
pub fn start<T: Task + Clone + 'static>(
    loaded: &Loaded,
    task: &T,
    options: &ort_training::Options,
    initial: &[NamedArray],
    placement: &Placement,
    group: &Arc<dyn Collective>,
) -> Result<Running> {
    let provider = placement.provider;
    let options = Options {
        optimizer: options.optimizer,
        provider,
        precision: placement.precision,
        fused_attention: placement.fused_attention,
        own_kernels: placement.own_kernels,
        gradient_checkpointing: options.gradient_checkpointing,
        ranks: group.world_size(),
        shards: match placement.shard_optimizer {
            true => group.world_size(),
            false => 1,
        },
        expose: options.expose,
    };
    let Artifacts {
        plan, step_graph, ..
    } = compile(task, &options).with_context(|| format!("compiling the model for {provider}"))?;
    let options = SessionOptions {
        reserve: placement
            .largest_batch
            .and_then(|sizes| usize::try_from(peak(&step_graph, &sizes)).ok()),
        device_id: placement.device_id,
        threads: placement.threads,
        allow_cpu_nodes: placement.allow_cpu_nodes,
        collective: Arc::clone(group),
    };
    let dropout = plan.dropout.clone();
    let (step_sizes, evaluation_sizes) = (plan.step_sizes.clone(), plan.evaluation_sizes.clone());
    let engine = SessionEngine::new(loaded, plan, options, initial)?;
    Ok(Running {
        engine: Box::new(engine),
        placement: *placement,
        task: Box::new(task.clone()),
        dropout,
        step_sizes,
        evaluation_sizes,
        step_graph,
        costs: ModelCosts::default(),
    })
}
