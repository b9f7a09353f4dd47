//! The engine on ordinary builds: parameters, gradients and moments stay in the device's memory, and every run
//! reads and writes them there.
//!
//! Several parameters lie in one segment, and the optimizer's outputs are bound onto its inputs.
//! Where a provider's buffers are handles (WebGPU, DirectML) each parameter has its own, and what
//! is written lies in a second buffer that takes the first one's place. Sizes are inputs of the
//! models, so that no shape is computed on the processor. ONNX Runtime's memory patterns are off:
//! they would be one more block as large as everything that the first run has allocated, 76 GiB
//! instead of 41 for MPNet-base at 64 × 512.

mod placement;
mod ranks;
mod scaling;

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use mpnet_plan::{Bf16Form, Link, Plan, Precision, Provider, names};
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::value::{DynTensor, TensorRef};

use super::arena;
use super::binding::{BoundSession, DeviceVector};
use super::error::EngineError;
use super::tensor::{borrow, by_name, check_length, copy_out};
use super::{Engine, NamedArray, OptimizerState, Result, Tensor, TensorData};
use crate::collective::{self, Collective, Overlap};
use crate::device::processor_threads;
use crate::library::Loaded;
use crate::processor::Capability;
use crate::provider::Target;

use scaling::LossScaler;

/// How a [`SessionEngine`] is to run beside what its plan says.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Which of the provider's devices.
    pub device_id: i32,
    /// Threads of one operation on the processor; [`processor_threads`] if absent.
    pub threads: Option<usize>,
    /// Whether nodes that the provider has no kernel for may run on the processor.
    pub allow_cpu_nodes: bool,
    /// Bytes of a GPU's memory to take at once, where there is room: what the largest step will need. Taken bit by
    /// bit as a first step asks for it, memory is in pieces that later steps don't fit into.
    pub reserve: Option<usize>,
    /// The ranks that train together: the gradients are those of all. Each of them has to make the same updates.
    pub collective: Arc<dyn Collective>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            device_id: 0,
            threads: None,
            allow_cpu_nodes: false,
            reserve: None,
            collective: collective::solo(),
        }
    }
}

/// Trains through ordinary sessions.
pub struct SessionEngine {
    /// The sessions are bound to views of these vectors. Both are dropped together, after which no session runs;
    /// the vectors first, as memory goes back to the device through the first session's allocator.
    segments: Vec<SegmentMemory>,
    step: Model,
    evaluation: Model,
    optimizer: BoundSession,
    /// Where ranks share the optimizer.
    squares: Option<BoundSession>,
    clear: BoundSession,
    copy: BoundSession,
    plan: Plan,
    /// Updates made.
    updates: i64,
    has_gradients: bool,
    scaling: Option<LossScaler>,
    collective: Arc<dyn Collective>,
    /// Where there are several ranks that reach the gradients where they lie.
    overlap: Option<Arc<Overlap>>,
}

struct SegmentMemory {
    parameters: Swapping,
    gradients: Swapping,
    first_moments: Swapping,
    second_moments: Swapping,
}

/// A vector and, where a model may not write what it reads, another that takes its place when it is written.
struct Swapping {
    current: DeviceVector,
    next: Option<DeviceVector>,
}

impl Swapping {
    fn new(allocator: &Rc<Allocator>, len: usize, in_place: bool) -> ort::Result<Self> {
        let next = (!in_place).then(|| DeviceVector::new(allocator, len));
        Ok(Self {
            current: DeviceVector::new(allocator, len)?,
            next: next.transpose()?,
        })
    }

    /// What a model writes.
    fn next(&self) -> &DeviceVector {
        self.next.as_ref().unwrap_or(&self.current)
    }

    /// Makes what was written current.
    fn swap(&mut self) {
        if let Some(next) = &mut self.next {
            std::mem::swap(&mut self.current, next);
        }
    }
}

/// A model that takes batches.
struct Model {
    graph: &'static str,
    session: BoundSession,
    /// Inputs that come with every batch.
    inputs: Vec<String>,
    /// Outputs that come to the host.
    outputs: Vec<String>,
}

/// Which vector of a segment.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Parameter,
    FirstMoment,
    SecondMoment,
}

impl SegmentMemory {
    /// A segment of `len` floats, of whose moments `part` are here.
    fn new(
        allocator: &Rc<Allocator>,
        len: usize,
        part: usize,
        in_place: bool,
    ) -> ort::Result<Self> {
        let vector = |len| Swapping::new(allocator, len, in_place);
        Ok(Self {
            parameters: vector(len)?,
            gradients: vector(len)?,
            first_moments: vector(part)?,
            second_moments: vector(part)?,
        })
    }

    fn current(&self, kind: Kind) -> &DeviceVector {
        match kind {
            Kind::Parameter => &self.parameters.current,
            Kind::FirstMoment => &self.first_moments.current,
            Kind::SecondMoment => &self.second_moments.current,
        }
    }

    fn all(&self) -> [&Swapping; 4] {
        [
            &self.parameters,
            &self.gradients,
            &self.first_moments,
            &self.second_moments,
        ]
    }
}

/// A model that reads what others write.
#[derive(Debug, Clone, Copy)]
enum Reader {
    Step,
    Evaluation,
    Optimizer,
}

/// Has `model` read the current parameters.
fn bind_parameters(plan: &Plan, segments: &[SegmentMemory], model: &mut Model) -> ort::Result<()> {
    for slot in &plan.slots {
        let current = &segments[slot.segment].parameters.current;
        // SAFETY: as `SessionEngine::segments` says.
        let parameter = unsafe { current.view(slot.offset, &slot.shape) }?;
        model.session.bind_input(&slot.name, &*parameter)?;
    }
    Ok(())
}

/// Whether a processor of that capability has the arithmetic of the models.
fn check_arithmetic(
    provider: Provider,
    precision: Precision,
    capability: Capability,
) -> Result<()> {
    if precision == Precision::BF16 && provider.info().bf16 != Bf16Form::Tensors {
        capability.bf16()?;
    }
    Ok(())
}

impl SessionEngine {
    /// Loads the models and gives the parameters their values; moments are zero.
    ///
    /// # Errors
    /// The provider is not in the build or lacks an operator, there is no room on the device, or `initial` is not
    /// every parameter.
    pub fn new(
        loaded: &Loaded,
        plan: Plan,
        options: SessionOptions,
        initial: &[NamedArray],
    ) -> Result<Self> {
        let provider = plan.provider;
        ranks::check(&plan, &*options.collective)?;
        check_arithmetic(provider, plan.precision, Capability::here())?;
        if provider == Provider::Cuda {
            crate::library::preload_cuda(&loaded.path)?;
            arena::share(loaded.environment(), options.device_id)
                .map_err(EngineError::runtime("set up the GPU's memory"))?;
        }
        let overlap = ranks::overlap(&plan, &options.collective);
        let told = overlap.as_ref();
        let target = Target {
            provider,
            device_id: options.device_id,
            precision: plan.precision,
            plugin: loaded.plugin(),
        };
        let load = |model: &[u8], which| load(loaded, target, &options, model, which, told);
        let models = &plan.models;
        let step = load(&models.step, "training")?;
        let evaluation = load(&models.evaluation, "evaluation")?;
        let optimizer = load(&models.optimizer, "optimizer")?;
        let squares = models.squares.as_deref();
        let squares = squares.map(|model| load(model, "squares")).transpose()?;
        let clear = load(&models.clear, "clearing")?;
        let copy = load(&models.copy, "copying")?;

        let room = || EngineError::runtime("make room for parameters, gradients and moments");
        let allocator = allocator(step.session(), provider, options.device_id).map_err(room())?;
        let in_place = provider.info().updates_in_place;
        let segments = plan
            .segments
            .iter()
            .map(|segment| {
                let part = segment.len / plan.shards;
                SegmentMemory::new(&allocator, segment.len, part, in_place)
            })
            .collect::<ort::Result<Vec<_>>>()
            .map_err(room())?;
        let bound = plan.slots.iter().flat_map(|slot| {
            let Link { input, output } = &slot.gradient;
            [slot.name.as_str(), input, output]
        });
        let bound: HashSet<&str> = bound.collect();
        let step = Model::new("training", step, &bound)?;
        let evaluation = Model::new("evaluation", evaluation, &bound)?;
        // Gradients in f16 vanish unless the loss is scaled up.
        let scaling = (plan.precision == Precision::F16).then(LossScaler::default);
        let mut engine = Self {
            step,
            evaluation,
            optimizer,
            squares,
            clear,
            copy,
            segments,
            plan,
            updates: 0,
            has_gradients: false,
            scaling,
            collective: options.collective,
            overlap,
        };
        engine.show_gradients();
        let fetched = engine
            .optimizer
            .fetch([names::GRADIENT_NORM.to_owned()])
            .and_then(|()| match &mut engine.squares {
                Some(squares) => squares.fetch([names::SQUARES.to_owned()]),
                None => Ok(()),
            });
        fetched
            .and_then(|()| engine.bind_state())
            .and_then(|()| engine.bind_gradients())
            .map_err(EngineError::runtime("bind the parameters"))?;
        engine.zero()?;
        engine.check_complete(initial, |name| EngineError::MissingParameter { name })?;
        engine.set_parameters(initial)?;
        engine.clear_gradients()?;
        if let (Provider::Cuda, Some(bytes)) = (provider, options.reserve) {
            // What is freed stays with the arena. Without room for it, steps take what they find.
            match allocator.alloc::<u8>(bytes) {
                Ok(block) => drop(block),
                Err(error) => tracing::debug!("no {bytes} bytes at once: {error}"),
            }
        }
        Ok(engine)
    }

    /// Binds parameters and moments, new ones over old ones or beside them.
    fn bind_state(&mut self) -> ort::Result<()> {
        for model in [&mut self.step, &mut self.evaluation] {
            bind_parameters(&self.plan, &self.segments, model)?;
        }
        self.bind_optimizer_state()
    }

    /// The optimizer's part of it.
    fn bind_optimizer_state(&mut self) -> ort::Result<()> {
        for (segment, memory) in self.plan.segments.iter().zip(&self.segments) {
            let own = self.own_part(segment);
            for (link, vector, offset) in [
                (&segment.parameters, &memory.parameters, own.start),
                (&segment.first_moments, &memory.first_moments, 0),
                (&segment.second_moments, &memory.second_moments, 0),
            ] {
                // SAFETY: as `segments` says.
                let (current, next) = unsafe {
                    (
                        vector.current.view(offset, &[own.len()])?,
                        vector.next().view(offset, &[own.len()])?,
                    )
                };
                self.optimizer.bind_input(&link.input, &*current)?;
                self.optimizer.bind_output(&link.output, &*next)?;
            }
        }
        Ok(())
    }

    /// Binds gradients, new ones over old ones or beside them.
    fn bind_gradients(&mut self) -> ort::Result<()> {
        self.bind_step_gradients()?;
        self.bind_summed_gradients()
    }

    /// The step's part of it.
    fn bind_step_gradients(&mut self) -> ort::Result<()> {
        for slot in &self.plan.slots {
            let gradients = &self.segments[slot.segment].gradients;
            let (offset, shape) = (slot.offset, slot.shape.as_slice());
            // SAFETY: as `segments` says.
            let (current, next) = unsafe {
                let current = gradients.current.view(offset, shape)?;
                (current, gradients.next().view(offset, shape)?)
            };
            let session = &mut self.step.session;
            session.bind_input(&slot.gradient.input, &*current)?;
            session.bind_output(&slot.gradient.output, &*next)?;
        }
        Ok(())
    }

    /// What takes the gradients of an update, and what clears them.
    fn bind_summed_gradients(&mut self) -> ort::Result<()> {
        for (segment, memory) in self.plan.segments.iter().zip(&self.segments) {
            let own = self.own_part(segment);
            let gradients = &memory.gradients.current;
            // SAFETY: as `segments` says.
            let (all, own) = unsafe {
                (
                    gradients.view(0, &[segment.len])?,
                    gradients.view(own.start, &[own.len()])?,
                )
            };
            let Link { input, output } = &segment.gradients;
            self.optimizer.bind_input(input, &*own)?;
            if let Some(squares) = &mut self.squares {
                squares.bind_input(input, &*own)?;
            }
            self.clear.bind_output(output, &*all)?;
        }
        Ok(())
    }

    /// Binds anew what the model `which` reads, where that may have been copied when it was bound: ONNX Runtime
    /// 1.27 does so for plug-ins (1.24 does not), as the host's memory is not their device's.
    fn bind_again(&mut self, which: Reader) -> Result<()> {
        if self.plan.provider.info().plugin.is_none() {
            return Ok(());
        }
        let bound = match which {
            Reader::Step => bind_parameters(&self.plan, &self.segments, &mut self.step)
                .and_then(|()| self.bind_step_gradients()),
            Reader::Evaluation => bind_parameters(&self.plan, &self.segments, &mut self.evaluation),
            Reader::Optimizer => self
                .bind_optimizer_state()
                .and_then(|()| self.bind_summed_gradients()),
        };
        bound.map_err(EngineError::runtime("bind the parameters"))
    }

    /// Makes the gradients that a step has written the current ones.
    fn swap_gradients(&mut self) -> ort::Result<()> {
        if self.plan.provider.info().updates_in_place {
            return Ok(());
        }
        self.segments.iter_mut().for_each(|s| s.gradients.swap());
        self.bind_gradients()
    }

    /// Makes the parameters and moments that the optimizer has written the current ones.
    fn swap_state(&mut self) -> ort::Result<()> {
        if self.plan.provider.info().updates_in_place {
            return Ok(());
        }
        for segment in &mut self.segments {
            segment.parameters.swap();
            segment.first_moments.swap();
            segment.second_moments.swap();
        }
        self.bind_state()
    }

    /// Fills everything with zeros, the gaps between parameters included.
    fn zero(&mut self) -> Result<()> {
        let lengths = self.plan.segments.iter().map(|segment| segment.len);
        let zeros = vec![0.0; lengths.max().unwrap_or(0)];
        for segment in &self.segments {
            for vector in segment.all() {
                for vector in [Some(&vector.current), vector.next.as_ref()]
                    .into_iter()
                    .flatten()
                {
                    upload(&mut self.copy, vector, 0, &zeros[..vector.len()])
                        .map_err(EngineError::runtime("clear the parameters"))?;
                }
            }
        }
        Ok(())
    }

    fn clear_gradients(&mut self) -> Result<()> {
        self.has_gradients = false;
        self.clear
            .bind_scalar(names::ZERO, 0.0)
            .and_then(|()| self.clear.run())
            .map_err(EngineError::runtime("clear the gradients"))?;
        Ok(())
    }

    fn download(&mut self, kind: Kind, slot: usize) -> Result<Vec<f32>> {
        let slot = &self.plan.slots[slot];
        let len = slot.shape.iter().product();
        let vector = self.segments[slot.segment].current(kind);
        download(&mut self.copy, vector, slot.offset, len, &slot.name)
    }

    fn slot(&self, name: &str) -> Result<usize> {
        self.plan
            .slots
            .iter()
            .position(|slot| slot.name == name)
            .ok_or_else(|| EngineError::UnknownParameter {
                name: name.to_owned(),
            })
    }

    fn array(&mut self, kind: Kind, slot: usize) -> Result<NamedArray> {
        let values = self.download(kind, slot)?;
        let slot = &self.plan.slots[slot];
        Ok(NamedArray {
            name: slot.name.clone(),
            shape: slot.shape.clone(),
            values,
        })
    }

    fn arrays(&mut self, kind: Kind) -> Result<Vec<NamedArray>> {
        (0..self.plan.slots.len())
            .map(|slot| self.array(kind, slot))
            .collect()
    }

    /// Checks names and shapes, and that nothing is given twice.
    fn check_arrays(&self, arrays: &[NamedArray]) -> Result<()> {
        by_name(arrays, |array| &array.name)?;
        for array in arrays {
            let slot = &self.plan.slots[self.slot(&array.name)?];
            if array.shape != slot.shape {
                return Err(EngineError::ParameterShape {
                    name: array.name.clone(),
                    given: array.shape.clone(),
                    expected: slot.shape.clone(),
                });
            }
            check_length(&array.name, &array.shape, array.values.len())?;
        }
        Ok(())
    }

    fn check_complete(
        &self,
        arrays: &[NamedArray],
        missing: impl Fn(String) -> EngineError,
    ) -> Result<()> {
        let given = by_name(arrays, |array| &array.name)?;
        match self
            .plan
            .slots
            .iter()
            .find(|slot| !given.contains_key(slot.name.as_str()))
        {
            Some(slot) => Err(missing(slot.name.clone())),
            None => Ok(()),
        }
    }

    fn write(&mut self, kind: Kind, arrays: &[NamedArray]) -> Result<()> {
        for array in arrays {
            let slot = &self.plan.slots[self.slot(&array.name)?];
            let vector = self.segments[slot.segment].current(kind);
            upload(&mut self.copy, vector, slot.offset, &array.values)
                .map_err(EngineError::runtime(format!("write '{}'", array.name)))?;
        }
        Ok(())
    }

    /// AdamW's numbers of the next update.
    fn optimizer_scalars(&self, learning_rate: f32) -> [(&'static str, f32); 4] {
        let optimizer = &self.plan.optimizer;
        let update = (self.updates + 1) as f64;
        let learning_rate = f64::from(learning_rate);
        let correction = |beta: f32| 1.0 - f64::from(beta).powf(update);
        let scale = self.scaling.as_ref().map_or(1.0, LossScaler::scale);
        [
            (
                names::STEP_SIZE,
                (learning_rate / correction(optimizer.beta1)) as f32,
            ),
            (
                names::DECAY,
                (1.0 - learning_rate * f64::from(optimizer.weight_decay)) as f32,
            ),
            (
                names::SECOND_CORRECTION,
                (1.0 / correction(optimizer.beta2).sqrt()) as f32,
            ),
            (names::GRADIENT_SCALE, 1.0 / scale),
        ]
    }
}

impl Engine for SessionEngine {
    fn train_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        if self.is_summing() {
            return Err(EngineError::Summed);
        }
        let scaled = self.scaling.as_ref().and_then(|scaling| {
            let scale = inputs.iter().find(|input| input.name == names::LOSS_SCALE);
            scale.map(|input| scaling.scaled(input))
        });
        let inputs: Vec<&Tensor> = inputs
            .iter()
            .map(|&input| match &scaled {
                Some(scaled) if input.name == scaled.name => scaled,
                Some(_) | None => input,
            })
            .collect();
        self.bind_again(Reader::Step)?;
        let mut outputs = self.step.run(&inputs)?;
        if let Some(scaling) = &self.scaling {
            let exposed = self.plan.slots.iter().filter_map(|s| s.exposed.as_deref());
            let scaled: HashSet<&str> = exposed.chain([names::LOSS]).collect();
            for output in &mut outputs {
                if scaled.contains(output.name.as_str()) {
                    *output = scaling.unscaled(output);
                }
            }
        }
        self.swap_gradients()
            .map_err(EngineError::runtime("swap the gradients"))?;
        self.has_gradients = true;
        Ok(outputs)
    }

    fn eval_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        self.bind_again(Reader::Evaluation)?;
        self.evaluation.run(inputs)
    }

    fn before_last_step(&mut self) {
        if let Some(overlap) = &self.overlap {
            overlap.last_step();
        }
    }

    fn sum_gradients(&mut self) -> Result<()> {
        match &self.overlap {
            Some(overlap) => Ok(overlap.begin_rest()?),
            None => Ok(()),
        }
    }

    fn optimizer_step(&mut self, learning_rate: f32) -> Result<f32> {
        if !self.has_gradients {
            return Err(EngineError::NoGradients);
        }
        self.complete_sums()?;
        self.bind_again(Reader::Optimizer)?;
        let squares = self.sum_squares()?;
        let scalars = self.optimizer_scalars(learning_rate);
        let scalars = scalars
            .into_iter()
            .chain(squares.map(|sum| (names::SQUARES, sum)));
        let update = || {
            for (name, value) in scalars {
                self.optimizer.bind_scalar(name, value)?;
            }
            self.optimizer.run()
        };
        let outputs = update().map_err(EngineError::runtime("update the parameters"))?;
        let norm = outputs
            .first()
            .map(|output| copy_out(names::GRADIENT_NORM, output))
            .transpose()?
            .and_then(|tensor| tensor.scalar())
            .ok_or_else(|| EngineError::NotScalar {
                name: names::GRADIENT_NORM.to_owned(),
                shape: Vec::new(),
            })?;
        self.gather_parameters()?;
        self.swap_state()
            .map_err(EngineError::runtime("swap the parameters"))?;
        self.clear_gradients()?;
        if let Some(scaling) = &mut self.scaling {
            scaling.update(norm);
        }
        if norm.is_finite() {
            self.updates += 1;
        }
        Ok(norm)
    }

    fn forget_gradients(&mut self) -> Result<()> {
        self.wait_for_sums()?;
        self.clear_gradients()
    }

    fn parameter(&mut self, name: &str) -> Result<NamedArray> {
        let slot = self.slot(name)?;
        self.array(Kind::Parameter, slot)
    }

    fn parameters(&mut self) -> Result<Vec<NamedArray>> {
        self.arrays(Kind::Parameter)
    }

    fn set_parameters(&mut self, parameters: &[NamedArray]) -> Result<()> {
        self.check_arrays(parameters)?;
        self.write(Kind::Parameter, parameters)
    }

    fn optimizer_state(&mut self) -> Result<OptimizerState> {
        Ok(OptimizerState {
            step: self.updates,
            first_moments: self.moments(Kind::FirstMoment)?,
            second_moments: self.moments(Kind::SecondMoment)?,
            loss_scaling: self.scaling.as_ref().map(LossScaler::state),
        })
    }

    fn set_optimizer_state(&mut self, state: OptimizerState) -> Result<()> {
        let moments = [
            ("first", Kind::FirstMoment, &state.first_moments),
            ("second", Kind::SecondMoment, &state.second_moments),
        ];
        for (which, _, arrays) in moments {
            self.check_arrays(arrays)?;
            self.check_complete(arrays, |name| EngineError::MissingMoment { which, name })?;
        }
        for (_, kind, arrays) in moments {
            self.write_moments(kind, arrays)?;
        }
        self.updates = state.step;
        if let (Some(scaling), Some(state)) = (&mut self.scaling, state.loss_scaling) {
            *scaling = LossScaler::from(state);
        }
        self.clear_gradients()
    }
}

impl Model {
    /// Splits the session's values into those of a batch and those that are `bound` once and for all.
    fn new(graph: &'static str, mut session: BoundSession, bound: &HashSet<&str>) -> Result<Self> {
        let own = |names: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            names
                .filter(|name| !bound.contains(name))
                .map(str::to_owned)
                .collect()
        };
        let inputs = own(&mut session.inputs());
        let outputs = own(&mut session.outputs());
        session
            .fetch(outputs.clone())
            .map_err(EngineError::runtime(format!("bind the {graph} model")))?;
        Ok(Self {
            graph,
            session,
            inputs,
            outputs,
        })
    }

    fn run(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let graph = self.graph;
        let given: HashMap<&str, &&Tensor> = by_name(inputs, |input| &input.name)?;
        if let Some(input) = inputs.iter().find(|i| !self.inputs.contains(&i.name)) {
            return Err(EngineError::UnknownInput {
                graph,
                name: input.name.clone(),
                known: self.inputs.clone(),
            });
        }
        for name in &self.inputs {
            let input = given
                .get(name.as_str())
                .ok_or_else(|| EngineError::MissingInput {
                    graph,
                    name: name.clone(),
                })?;
            check_length(name, &input.shape, input.data.len())?;
            borrow(input)
                .and_then(|value| self.session.bind_input(name, &*value))
                .map_err(EngineError::runtime(format!("take the input '{name}'")))?;
        }
        let outputs: Vec<DynTensor> = self
            .session
            .run()
            .map_err(EngineError::runtime(format!("run the {graph} graph")))?;
        self.outputs
            .iter()
            .zip(&outputs)
            .map(|(name, output)| copy_out(name, output))
            .collect()
    }
}

/// Copies floats from a device by way of the session of the copying model; `name` is for messages.
fn download(
    copy: &mut BoundSession,
    source: &DeviceVector,
    offset: usize,
    len: usize,
    name: &str,
) -> Result<Vec<f32>> {
    let mut run = || {
        // SAFETY: as `segments` says.
        let source = unsafe { source.view(offset, &[len]) }?;
        copy.bind_input(names::COPY_SOURCE, &*source)?;
        copy.fetch([names::COPY_TARGET.to_owned()])?;
        copy.run()
    };
    let values = run().map_err(EngineError::runtime(format!("read '{name}'")))?;
    let value = values.first().ok_or_else(|| EngineError::NotScalar {
        name: name.to_owned(),
        shape: Vec::new(),
    })?;
    match copy_out(name, value)?.data {
        TensorData::F32(values) => Ok(values),
        TensorData::I64(_) | TensorData::U8(_) | TensorData::U32(_) | TensorData::Bool(_) => {
            Err(EngineError::ParameterType {
                name: name.to_owned(),
            })
        }
    }
}

/// Copies floats to a device by way of the session of the copying model.
fn upload(
    copy: &mut BoundSession,
    target: &DeviceVector,
    offset: usize,
    values: &[f32],
) -> ort::Result<()> {
    let shape = [values.len()];
    let source = TensorRef::from_array_view((shape, values))?;
    // SAFETY: the copy is made before this function returns, and later runs bind their own vectors.
    let target = unsafe { target.view(offset, &shape) }?;
    copy.bind_input(names::COPY_SOURCE, &*source)?;
    copy.fetch([])?;
    copy.bind_output(names::COPY_TARGET, &*target)?;
    copy.run().map(drop)
}

/// Loads a model on the provider; where some of its nodes do not run there, says which.
fn load(
    loaded: &Loaded,
    target: Target<'_>,
    options: &SessionOptions,
    model: &[u8],
    which: &'static str,
    overlap: Option<&Arc<Overlap>>,
) -> Result<BoundSession> {
    let provider = target.provider;
    let builder =
        |allow_cpu_nodes| session_options(loaded, target, options, allow_cpu_nodes, overlap);
    builder(options.allow_cpu_nodes)
        .and_then(|builder| BoundSession::new(builder, model))
        .map_err(|source| {
            let accepted = options.allow_cpu_nodes || provider == Provider::Cpu;
            let elsewhere = match builder(true) {
                Ok(builder) if !accepted => placement::on_processor(builder, model),
                Ok(_) | Err(_) => String::new(),
            };
            let hint = if elsewhere.is_empty() {
                String::new()
            } else {
                format!(
                    "; these nodes would run on the processor: {elsewhere}; --allow-cpu-nodes accepts that"
                )
            };
            EngineError::Load {
                which,
                provider,
                hint,
                source,
            }
        })
}

fn session_options(
    loaded: &Loaded,
    target: Target<'_>,
    options: &SessionOptions,
    allow_cpu_nodes: bool,
    overlap: Option<&Arc<Overlap>>,
) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(loaded.environment())?
        // Five sessions, each with its own threads: those of a model that rests must not spin.
        .with_config_entry("session.force_spinning_stop", "1")?
        // A pattern is one more block of the size of everything that a first run has already allocated.
        .with_memory_pattern(false)?;
    // A number of its own choice, ONNX Runtime would pin to cores, those too that this process may not run on.
    let threads = options.threads.unwrap_or_else(processor_threads);
    builder = builder.with_intra_threads(threads)?;
    if target.provider == Provider::Cuda {
        builder = builder.with_config_entry(arena::SHARED.0, arena::SHARED.1)?;
    }
    let builder = crate::kernels::register(builder, target.provider, target.device_id, overlap)?;
    crate::provider::register(builder, target, allow_cpu_nodes)
}

/// The allocator of the memory in which the provider works.
fn allocator(session: &Session, provider: Provider, device_id: i32) -> ort::Result<Rc<Allocator>> {
    let Some(memory) = provider.info().memory else {
        return Ok(Rc::new(Allocator::default()));
    };
    let info = MemoryInfo::new(
        AllocationDevice::new(memory),
        device_id,
        AllocatorType::Device,
        MemoryType::Default,
    )?;
    Allocator::new(session, info).map(Rc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processor_without_instructions_for_bf16_is_refused_with_the_reason() {
        let check =
            |provider, precision| check_arithmetic(provider, precision, Capability::default());
        let refused = check(Provider::Cpu, Precision::BF16).unwrap_err();
        assert!(refused.to_string().contains("avx512_bf16"), "{refused}");
        assert!(check(Provider::Cpu, Precision::F32).is_ok());
        // The GPU multiplies.
        assert!(check(Provider::Cuda, Precision::BF16).is_ok());
        let able = Capability {
            avx512_bf16: true,
            ..Capability::default()
        };
        let bf16 = check_arithmetic(Provider::Cpu, Precision::BF16, able);
        assert_eq!(bf16.is_ok(), cfg!(target_arch = "x86_64"));
    }
}
