//! The engine on ONNX Runtime's training API: a training, an evaluation and an optimizer graph over one set of parameters.
//!
//! The training API's AdamW has one weight decay for all parameters. Parameters without decay get
//! their value back after the step, exactly: they are set to zero before it and added afterwards.

use std::collections::HashMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use mpnet_plan::{Precision, Provider};
use ort::session::Session;
use ort::session::builder::SessionBuilder;
use ort::training::Checkpoint;
use ort::value::{DynTensor, DynValueRef, TensorElementType, TensorRef, ValueType};

use super::error::EngineError;
use super::session_handle::{Graph, Models, SessionHandle};
use super::tensor::{borrow, by_name, check_length, copy_out};
use super::{Engine, NamedArray, OptimizerState, Result, Tensor, TensorData};
use crate::checkpoint_file;
use crate::device::processor_threads;
use crate::library::{self, Loaded};
use crate::provider::{self, Target, require_training_api};
use crate::scratch::Scratch;

/// What a [`TrainingApiEngine`] is made from.
#[derive(Debug, Clone)]
pub struct TrainingApiOptions {
    /// Folder with `training_model.onnx`, `eval_model.onnx`, `optimizer_model.onnx` and `checkpoint`; read once.
    pub artifacts: PathBuf,
    /// Every trainable parameter, in the order in which parameters and moments are to be returned.
    pub parameters: Vec<String>,
    /// Those among them that are not to decay.
    pub undecayed: Vec<String>,
    /// Parameters of the artifacts that serve the optimizer and not the model: the engine keeps them, and
    /// nobody sees them. Each has one element.
    pub hidden: Vec<String>,
    /// The decay of the optimizer graph; zero means that nothing has to be put right for `undecayed`.
    pub weight_decay: f32,
    /// The training graph's output that holds the norm of the gradients gathered so far.
    pub gradient_norm_output: String,
    /// Where to execute: one that [trains](Provider::trains).
    pub provider: Provider,
    /// Which of the provider's devices.
    pub device_id: i32,
    /// Threads of one operation; [`processor_threads`] if absent.
    pub threads: Option<usize>,
}

/// Trains through `OrtTrainingApi`.
pub struct TrainingApiEngine {
    session: SessionHandle,
    session_options: SessionBuilder,
    models: Models,
    loaded: Loaded,
    options: TrainingApiOptions,
    shapes: HashMap<String, Vec<usize>>,
    training: Signature,
    evaluation: Signature,
    /// Where in the training graph's outputs the gradient norm is.
    norm_index: usize,
    /// The norm after the latest training step; none if there are no gradients.
    norm: Option<f32>,
}

struct Signature {
    graph: Graph,
    inputs: Vec<String>,
    outputs: Vec<String>,
}

impl TrainingApiEngine {
    /// Reads the artifacts and sets up the session.
    ///
    /// # Errors
    /// The build has no training API, an artifact is missing or refused, or the options name parameters or
    /// outputs that the artifacts don't have.
    pub fn new(loaded: &Loaded, options: TrainingApiOptions) -> Result<Self> {
        require_training_api(options.provider)?;
        loaded.require_training_api()?;
        if options.provider == Provider::Cuda {
            library::preload_cuda(&loaded.path)?;
        }
        let path = options.artifacts.join("checkpoint");
        let listed = [&options.parameters[..], &options.hidden].concat();
        check_parameters(&path, &listed)?;
        let checkpoint = Checkpoint::load(&path).map_err(EngineError::runtime(format!(
            "load the checkpoint {}",
            path.display()
        )))?;
        let shapes = shapes(&checkpoint, &options.parameters)?;
        if let Some(name) = options
            .undecayed
            .iter()
            .find(|name| !shapes.contains_key(*name))
        {
            return Err(EngineError::UnknownParameter { name: name.clone() });
        }
        let session_options =
            session_options(loaded, &options).map_err(|source| EngineError::ProviderSetUp {
                provider: options.provider,
                source,
            })?;
        let models = read_models(&options.artifacts)?;
        let session =
            SessionHandle::new(loaded.environment(), &session_options, checkpoint, &models)
                .map_err(EngineError::runtime(format!(
                    "set up training from the artifacts in {}",
                    options.artifacts.display()
                )))?;
        let training = Signature::read(&session, Graph::Training)?;
        let evaluation = Signature::read(&session, Graph::Evaluation)?;
        let norm_index = training
            .outputs
            .iter()
            .position(|output| *output == options.gradient_norm_output)
            .ok_or_else(|| EngineError::NoGradientNorm {
                name: options.gradient_norm_output.clone(),
                outputs: training.outputs.clone(),
            })?;
        let mut engine = Self {
            session,
            session_options,
            models,
            loaded: loaded.clone(),
            options,
            shapes,
            training,
            evaluation,
            norm_index,
            norm: None,
        };
        engine.forget_gradients()?;
        Ok(engine)
    }

    fn discard_gradients(&mut self) -> Result<()> {
        self.norm = None;
        self.session
            .reset_gradients()
            .map_err(EngineError::runtime("reset the gradients"))
    }

    fn shape(&self, name: &str) -> Result<&[usize]> {
        self.shapes
            .get(name)
            .map(Vec::as_slice)
            .ok_or_else(|| EngineError::UnknownParameter {
                name: name.to_owned(),
            })
    }

    fn read_values(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self
            .session
            .checkpoint()
            .get_parameter(name, self.session.allocator())
            .map_err(EngineError::runtime(format!("read the parameter '{name}'")))?;
        let (_, values) =
            tensor
                .try_extract_tensor::<f32>()
                .map_err(|_| EngineError::ParameterType {
                    name: name.to_owned(),
                })?;
        Ok(values.to_vec())
    }

    fn write_values(&mut self, name: &str, values: &[f32]) -> Result<()> {
        let doing = || format!("write the parameter '{name}'");
        let shape = self.shape(name)?.to_vec();
        let tensor =
            TensorRef::from_array_view((shape, values)).map_err(EngineError::runtime(doing()))?;
        self.session
            .checkpoint_mut()
            .update_parameter(name, &tensor)
            .map_err(EngineError::runtime(doing()))
    }

    fn check_array(&self, array: &NamedArray) -> Result<()> {
        let expected = self.shape(&array.name)?;
        if array.shape != expected {
            return Err(EngineError::ParameterShape {
                name: array.name.clone(),
                given: array.shape.clone(),
                expected: expected.to_vec(),
            });
        }
        check_length(&array.name, &array.shape, array.values.len())
    }

    /// Sorts moments by the order of the parameters.
    fn in_order(&self, which: &'static str, moments: Vec<NamedArray>) -> Result<Vec<NamedArray>> {
        let mut by_name: HashMap<String, NamedArray> = moments
            .into_iter()
            .map(|moment| (moment.name.clone(), moment))
            .collect();
        let missing = |name: &String| EngineError::MissingMoment {
            which,
            name: name.clone(),
        };
        self.options
            .parameters
            .iter()
            .map(|name| by_name.remove(name).ok_or_else(|| missing(name)))
            .collect()
    }

    /// Checks that there is one moment of the right shape for each parameter.
    fn check_moments(&self, which: &'static str, moments: &[NamedArray]) -> Result<()> {
        let by_name = by_name(moments, |moment| &moment.name)?;
        for moment in moments {
            self.check_array(moment)?;
        }
        match self
            .options
            .parameters
            .iter()
            .find(|name| !by_name.contains_key(name.as_str()))
        {
            Some(name) => Err(EngineError::MissingMoment {
                which,
                name: name.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Gives a parameter that was zero during the optimizer step its value back, with what the step made of it
    /// where it was `stepped`.
    fn add_back(&mut self, name: &str, values: &mut [f32], stepped: bool) -> Result<()> {
        if stepped {
            let updates = self.read_values(name)?;
            let pairs = values.iter_mut().zip(updates);
            pairs.for_each(|(value, update)| *value += update);
        }
        self.write_values(name, values)
    }

    /// The names whose decay has to be undone around each optimizer step.
    fn spared(&self) -> &[String] {
        if self.options.weight_decay == 0.0 {
            &[]
        } else {
            &self.options.undecayed
        }
    }
}

impl Engine for TrainingApiEngine {
    fn train_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let outputs = self.training.run(&mut self.session, inputs)?;
        let norm = &outputs[self.norm_index];
        self.norm = Some(scalar(&self.options.gradient_norm_output, norm)?);
        self.training.copy_out(&outputs)
    }

    fn eval_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
        let outputs = self.evaluation.run(&mut self.session, inputs)?;
        self.evaluation.copy_out(&outputs)
    }

    fn optimizer_step(&mut self, learning_rate: f32) -> Result<f32> {
        let norm = self.norm.ok_or(EngineError::NoGradients)?;
        if !norm.is_finite() {
            self.discard_gradients()?;
            return Ok(norm);
        }
        // The optimizer graph decays every parameter alike: p·(1 − lr·decay) − u. A parameter that is zero
        // during the step comes out as exactly −u, to which the old value is added: p − u, rounded once, as
        // PyTorch's AdamW without decay does.
        let spared = self.spared().to_vec();
        let mut before = Vec::with_capacity(spared.len());
        for name in &spared {
            before.push(self.read_values(name)?);
        }
        let mut zeroed = spared.iter().zip(&before);
        let zeroed =
            zeroed.try_for_each(|(name, values)| self.write_values(name, &vec![0.0; values.len()]));
        let mut done = zeroed.and_then(|()| {
            self.session
                .optimizer_step(learning_rate)
                .map_err(EngineError::runtime("update the parameters"))
        });
        // After an error, too: no parameter is left at zero where it can be written.
        for (name, values) in spared.iter().zip(&mut before) {
            let written = self.add_back(name, values, done.is_ok());
            done = done.and(written);
        }
        done?;
        self.discard_gradients()?;
        Ok(norm)
    }

    fn forget_gradients(&mut self) -> Result<()> {
        self.discard_gradients()
    }

    fn parameter(&mut self, name: &str) -> Result<NamedArray> {
        let shape = self.shape(name)?.to_vec();
        Ok(NamedArray {
            name: name.to_owned(),
            shape,
            values: self.read_values(name)?,
        })
    }

    fn parameters(&mut self) -> Result<Vec<NamedArray>> {
        let names = self.options.parameters.clone();
        names.iter().map(|name| self.parameter(name)).collect()
    }

    fn set_parameters(&mut self, parameters: &[NamedArray]) -> Result<()> {
        by_name(parameters, |parameter| &parameter.name)?;
        for parameter in parameters {
            self.check_array(parameter)?;
        }
        for parameter in parameters {
            self.write_values(&parameter.name, &parameter.values)?;
        }
        Ok(())
    }

    fn optimizer_state(&mut self) -> Result<OptimizerState> {
        // The C API hands the moments out in no other way than in a checkpoint file.
        let scratch = Scratch::new().map_err(no_scratch)?;
        let file = scratch.file("checkpoint");
        self.session
            .checkpoint()
            .save(&file, true)
            .map_err(EngineError::runtime("save the optimizer state"))?;
        let bytes = map(&file)?;
        let mut state = checkpoint_file::read(&bytes)?.optimizer.unwrap_or_default();
        state.first_moments = self.in_order("first", state.first_moments)?;
        state.second_moments = self.in_order("second", state.second_moments)?;
        Ok(state)
    }

    fn set_optimizer_state(&mut self, mut state: OptimizerState) -> Result<()> {
        self.check_moments("first", &state.first_moments)?;
        self.check_moments("second", &state.second_moments)?;
        // A session takes moments only when it is created, from its checkpoint.
        let mut parameters = self.parameters()?;
        for name in &self.options.hidden {
            let zero = hidden_parameter(name);
            state.first_moments.push(zero.clone());
            state.second_moments.push(zero.clone());
            parameters.push(zero);
        }
        let bytes = checkpoint_file::write(&parameters, Some(&state))?;
        drop((parameters, state));
        let scratch = Scratch::new().map_err(no_scratch)?;
        let file = scratch.file("checkpoint");
        std::fs::write(&file, &bytes).map_err(EngineError::io("write", &file))?;
        drop(bytes);
        let checkpoint =
            Checkpoint::load(&file).map_err(EngineError::runtime("load the optimizer state"))?;
        self.session = SessionHandle::new(
            self.loaded.environment(),
            &self.session_options,
            checkpoint,
            &self.models,
        )
        .map_err(EngineError::runtime(
            "set up training from the optimizer state",
        ))?;
        self.discard_gradients()
    }
}

impl Signature {
    fn read(session: &SessionHandle, graph: Graph) -> Result<Self> {
        let doing = || {
            EngineError::runtime(format!(
                "list the inputs and outputs of the {} graph",
                graph.name()
            ))
        };
        Ok(Self {
            graph,
            inputs: session.input_names(graph).map_err(doing())?,
            outputs: session.output_names(graph).map_err(doing())?,
        })
    }

    fn run(&self, session: &mut SessionHandle, inputs: &[&Tensor]) -> Result<Vec<DynTensor>> {
        let values = self.order(inputs)?;
        session
            .run(self.graph, &values, self.outputs.len())
            .map_err(EngineError::runtime(format!(
                "run the {} graph",
                self.graph.name()
            )))
    }

    fn copy_out(&self, outputs: &[DynTensor]) -> Result<Vec<Tensor>> {
        self.outputs
            .iter()
            .zip(outputs)
            .map(|(name, output)| copy_out(name, output))
            .collect()
    }

    /// The inputs as ONNX Runtime's values over the caller's memory, in the graph's order.
    fn order<'a>(&self, inputs: &[&'a Tensor]) -> Result<Vec<DynValueRef<'a>>> {
        let graph = self.graph.name();
        let given = by_name(inputs, |input| &input.name)?;
        if let Some(input) = inputs
            .iter()
            .find(|input| !self.inputs.contains(&input.name))
        {
            return Err(EngineError::UnknownInput {
                graph,
                name: input.name.clone(),
                known: self.inputs.clone(),
            });
        }
        self.inputs
            .iter()
            .map(|name| {
                let input = given
                    .get(name.as_str())
                    .ok_or_else(|| EngineError::MissingInput {
                        graph,
                        name: name.clone(),
                    })?;
                check_length(name, &input.shape, input.data.len())?;
                borrow(input).map_err(EngineError::runtime(format!("take the input '{name}'")))
            })
            .collect()
    }
}

fn scalar(name: &str, output: &DynTensor) -> Result<f32> {
    let tensor = copy_out(name, output)?;
    let value = match tensor.data {
        TensorData::F32(values) => values.first().copied().filter(|_| values.len() == 1),
        TensorData::I64(values) => values
            .first()
            .map(|&value| value as f32)
            .filter(|_| values.len() == 1),
        TensorData::U8(values) => values
            .first()
            .map(|&value| f32::from(value))
            .filter(|_| values.len() == 1),
        TensorData::U32(values) => values
            .first()
            .map(|&value| value as f32)
            .filter(|_| values.len() == 1),
        TensorData::Bool(values) => values
            .first()
            .map(|&value| f32::from(value))
            .filter(|_| values.len() == 1),
    };
    value.ok_or_else(|| EngineError::NotScalar {
        name: name.to_owned(),
        shape: output.shape().to_vec(),
    })
}

/// What a hidden parameter holds at the start.
pub fn hidden_parameter(name: &str) -> NamedArray {
    NamedArray {
        name: name.to_owned(),
        shape: vec![1],
        values: vec![0.0],
    }
}

/// Checks that the checkpoint has exactly these parameters.
fn check_parameters(checkpoint: &Path, listed: &[String]) -> Result<()> {
    let found = checkpoint_file::parameter_names(&map(checkpoint)?)?;
    let absent = |name: &str, names: &[String]| !names.iter().any(|other| other == name);
    if let Some(name) = listed.iter().find(|name| absent(name, &found)) {
        return Err(EngineError::UnknownParameter { name: name.clone() });
    }
    match found.iter().find(|name| absent(name, listed)) {
        Some(name) => Err(EngineError::UnlistedParameter { name: name.clone() }),
        None => Ok(()),
    }
}

/// A file's bytes, read as they are needed.
fn map(path: &Path) -> Result<Mmap> {
    let file = File::open(path).map_err(EngineError::io("open", path))?;
    // SAFETY: the files mapped are this engine's own temporary files, or artifacts, which are written under
    // another name and never changed; the mapping is dropped before the function that asked for it returns.
    unsafe { Mmap::map(&file) }.map_err(EngineError::io("map", path))
}

/// Shape of each parameter in the checkpoint.
fn shapes(checkpoint: &Checkpoint, names: &[String]) -> Result<HashMap<String, Vec<usize>>> {
    let mut shapes = HashMap::with_capacity(names.len());
    for name in names {
        let found = checkpoint
            .get_parameter_type(name)
            .map_err(|_| EngineError::UnknownParameter { name: name.clone() })?;
        let ValueType::Tensor {
            ty: TensorElementType::Float32,
            shape,
            ..
        } = found
        else {
            return Err(EngineError::ParameterType { name: name.clone() });
        };
        let shape = shape
            .iter()
            .map(|&dimension| usize::try_from(dimension).unwrap_or(0))
            .collect();
        if shapes.insert(name.clone(), shape).is_some() {
            return Err(EngineError::Duplicate { name: name.clone() });
        }
    }
    Ok(shapes)
}

fn no_scratch(source: std::io::Error) -> EngineError {
    EngineError::io("create a folder in", std::env::temp_dir())(source)
}

fn session_options(loaded: &Loaded, options: &TrainingApiOptions) -> ort::Result<SessionBuilder> {
    let mut builder = Session::builder(loaded.environment())?
        // Training, evaluation and optimizer each have their own threads: those of a graph that rests must not spin.
        .with_config_entry("session.force_spinning_stop", "1")?;
    // A number of its own choice, ONNX Runtime would pin to cores, those too that this process may not run on.
    let threads = options.threads.unwrap_or_else(processor_threads);
    builder = builder.with_intra_threads(threads)?;
    let builder = crate::kernels::register(builder, options.provider, options.device_id, None)?;
    // The graphs compute shapes, which ONNX Runtime does on the processor.
    let target = Target {
        provider: options.provider,
        device_id: options.device_id,
        precision: Precision::F32,
        plugin: None,
    };
    provider::register(builder, target, true)
}

fn read_models(artifacts: &Path) -> Result<Models> {
    let read = |file: &str| {
        let path = artifacts.join(file);
        std::fs::read(&path).map_err(EngineError::io("read", path))
    };
    Ok(Models {
        training: read("training_model.onnx")?,
        evaluation: read("eval_model.onnx")?,
        optimizer: read("optimizer_model.onnx")?,
    })
}
