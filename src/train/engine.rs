//! From a model's configuration to a running engine: compile, write the artifacts, load them.

use super::execution::EngineKind;
use super::micro_batch::{Gathers, MicroBatch, Outputs, training_inputs};
use super::placement::Placement;
use super::session;
use crate::data::MaskKey;
use anyhow::{Context, Result};
use mpnet_graphs::ir::cost::costs;
use mpnet_graphs::ir::memory::peak;
use mpnet_graphs::lower::ort_training::{Artifacts, Options, compile, training_graph};
use mpnet_graphs::model::{AttentionForm, Task};
use mpnet_graphs::ops::Graph;
use mpnet_plan::{Bindings, Randomness, SizeInput, Unbound, names};
use mpnet_runtime::checkpoint_file;
use mpnet_runtime::collective::{self, Collective};
use mpnet_runtime::engine::training_api::hidden_parameter;
use mpnet_runtime::engine::{Engine, NamedArray, Tensor, TrainingApiEngine, TrainingApiOptions};
use mpnet_runtime::library::Loaded;
use mpnet_runtime::scratch::Scratch;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

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

/// A model on an engine: takes micro-batches and gives figures.
pub struct Running {
    /// Parameters, gradients and the optimizer.
    pub engine: Box<dyn Engine>,
    /// Where it runs, and how.
    pub placement: Placement,
    pub(super) task: Box<dyn Task>,
    /// What a training step takes for its dropout.
    pub(super) dropout: Randomness,
    /// Further inputs of a training step.
    pub(super) step_sizes: Vec<SizeInput>,
    /// Further inputs of an evaluation.
    pub(super) evaluation_sizes: Vec<SizeInput>,
    /// What a training step executes.
    pub(super) step_graph: Graph,
    pub(super) costs: ModelCosts,
}

/// Operations of training steps by their sizes, and the graph that says so, once it is asked for.
#[derive(Default)]
pub(super) struct ModelCosts {
    graph: Option<Graph>,
    known: HashMap<Bindings, u64>,
}

impl Running {
    /// Runs forward and backward on one micro-batch and adds to the gradients. `items` are those of the whole
    /// update, over which its loss is averaged; `key` names the update and the micro-batch, from which dropout
    /// follows.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn train_step(
        &mut self,
        batch: &dyn MicroBatch,
        items: usize,
        key: MaskKey,
    ) -> Result<Outputs> {
        self.train_step_given(batch, items, key, None)
    }

    /// [`train_step`](Self::train_step) with one of the batch's inputs in place of its own: what it takes of all
    /// micro-batches of its update.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn train_step_given(
        &mut self,
        batch: &dyn MicroBatch,
        items: usize,
        key: MaskKey,
        given: Option<&Tensor>,
    ) -> Result<Outputs> {
        self.step(batch, 1.0 / items.max(1) as f32, key, given)
    }

    fn step(
        &mut self,
        batch: &dyn MicroBatch,
        scale: f32,
        key: MaskKey,
        given: Option<&Tensor>,
    ) -> Result<Outputs> {
        let mut inputs = training_inputs(batch, scale, &self.dropout, key)?;
        inputs.extend(sizes(&self.step_sizes, batch)?);
        let own = inputs.iter();
        let own = own.filter(|tensor| given.is_none_or(|given| given.name != tensor.name));
        let inputs: Vec<&Tensor> = own.chain(given).collect();
        Ok(self.engine.train_step(&inputs)?.into())
    }

    /// The rows that a micro-batch gives to all of its update, with the dropout that its training step has; nothing is
    /// learnt.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn given_rows(&mut self, gathers: &Gathers, key: MaskKey) -> Result<Vec<f32>> {
        let alone = gathers.alone.as_ref();
        let dropout = match &self.dropout {
            Randomness::Masks(sites) => !sites.is_empty(),
            Randomness::Factors(factors) => !factors.is_empty(),
        };
        let outputs = match dropout {
            // Evaluations have none: a training step, whose gradients are multiplied by 0.
            true => self.step(alone, 0.0, key, None)?,
            false => self.eval_step(alone)?,
        };
        Ok(outputs.floats(gathers.output)?.to_vec())
    }

    /// Evaluates one micro-batch; nothing is learnt.
    ///
    /// # Errors
    /// Where the engine fails.
    pub fn eval_step(&mut self, batch: &dyn MicroBatch) -> Result<Outputs> {
        let mut inputs = batch.inputs();
        inputs.extend(sizes(&self.evaluation_sizes, batch)?);
        let inputs: Vec<&Tensor> = inputs.iter().collect();
        Ok(self.engine.eval_step(&inputs)?.into())
    }

    /// Bytes of intermediate values that a training step of these sizes holds at most.
    pub fn step_memory(&self, sizes: &Bindings) -> u64 {
        peak(&self.step_graph, sizes)
    }

    /// Floating-point operations of a training step of these sizes, as they are counted for MFU: those of the model
    /// and its derivative in their plainest form, whatever an engine computes twice or on rows that nobody reads.
    ///
    /// # Errors
    /// Where the model is not valid.
    pub fn step_cost(&mut self, sizes: &Bindings) -> Result<u64> {
        let ModelCosts { graph, known } = &mut self.costs;
        if let Some(flops) = known.get(sizes) {
            return Ok(*flops);
        }
        let graph = match graph {
            Some(graph) => graph,
            None => {
                graph.insert(training_graph(self.task.as_ref(), false, self.placement.provider)?.0)
            }
        };
        let flops = costs(graph, sizes).total.flops;
        known.insert(*sizes, flops);
        Ok(flops)
    }
}

/// The sizes of `batch` that a model takes as inputs.
fn sizes(inputs: &[SizeInput], batch: &dyn MicroBatch) -> Result<Vec<Tensor>, Unbound> {
    let sizes = batch.sizes();
    inputs.iter().map(|input| input.tensor(&sizes)).collect()
}

/// Compiles `task` and starts it as `placement` says with the parameters `initial`, in this process alone.
///
/// # Errors
/// As [`start_among`].
pub fn start<T: Task + Clone + 'static>(
    loaded: &Loaded,
    task: &T,
    options: &Options,
    initial: &[NamedArray],
    placement: &Placement,
) -> Result<Running> {
    start_among(
        loaded,
        task,
        options,
        initial,
        placement,
        &collective::solo(),
    )
}

/// Compiles `task` and starts it as `placement` says with the parameters `initial`, on one of the ranks of `group`, whose
/// gradients are added up before each update.
///
/// The artifacts for the training API pass through a temporary folder, as the training API reads its checkpoint from a
/// file.
///
/// # Errors
/// Where the configuration is not valid or ONNX Runtime refuses the artifacts.
pub fn start_among<T: Task + Clone + 'static>(
    loaded: &Loaded,
    task: &T,
    options: &Options,
    initial: &[NamedArray],
    placement: &Placement,
    group: &Arc<dyn Collective>,
) -> Result<Running> {
    let placement = placement.for_model(task)?;
    match placement.engine {
        EngineKind::TrainingApi => start_training_api(loaded, task, options, initial, &placement),
        EngineKind::Auto | EngineKind::Session => {
            session::start(loaded, task, options, initial, &placement, group)
        }
    }
}

fn start_training_api<T: Task + Clone + 'static>(
    loaded: &Loaded,
    task: &T,
    options: &Options,
    initial: &[NamedArray],
    placement: &Placement,
) -> Result<Running> {
    let provider = placement.provider;
    let attention = if placement.fused_attention {
        AttentionForm::Fused
    } else {
        AttentionForm::Expanded
    };
    let artifacts = compile(task, options, provider, attention).context("compiling the model")?;
    let folder = Scratch::new().with_context(|| {
        let parent = std::env::temp_dir();
        format!(
            "creating a folder for the artifacts in {}",
            parent.display()
        )
    })?;
    write_artifacts(folder.path(), &artifacts, initial)?;
    let parameters = task.parameters();
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
            device_id: placement.device_id,
            threads: placement.threads,
        },
    )?;
    Ok(Running {
        engine: Box::new(engine),
        placement: *placement,
        task: Box::new(task.clone()),
        dropout: artifacts.dropout,
        // These models compute their sizes.
        step_sizes: Vec::new(),
        evaluation_sizes: Vec::new(),
        step_graph: artifacts.step_graph,
        costs: ModelCosts::default(),
    })
}
