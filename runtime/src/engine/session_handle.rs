//! The training session of ONNX Runtime's C API, owned: the only calls into it that `ort` has no sound wrapper for.

use std::ffi::CStr;
use std::ptr::{self, NonNull};

use ort::AsPointer as _;
use ort::environment::Environment;
use ort::memory::Allocator;
use ort::session::builder::SessionBuilder;
use ort::sys::{OrtStatusPtr, OrtTrainingApi, OrtTrainingSession, OrtValue};
use ort::training::Checkpoint;
use ort::value::{DynTensor, DynValueRef};

/// Which of the session's two graphs is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Graph {
    Training,
    Evaluation,
}

impl Graph {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Training => "training",
            Self::Evaluation => "evaluation",
        }
    }
}

/// The three models of a training session, as ONNX files' bytes.
pub(super) struct Models {
    pub training: Vec<u8>,
    pub evaluation: Vec<u8>,
    pub optimizer: Vec<u8>,
}

/// An `OrtTrainingSession` together with the checkpoint state whose parameters it trains.
pub(super) struct SessionHandle {
    session: NonNull<OrtTrainingSession>,
    checkpoint: Checkpoint,
    api: &'static OrtTrainingApi,
    allocator: Allocator,
    // The session's loggers belong to the environment.
    _environment: Environment,
}

impl SessionHandle {
    /// Creates the session; the parameters are those of `checkpoint`.
    pub(super) fn new(
        environment: &Environment,
        options: &SessionBuilder,
        mut checkpoint: Checkpoint,
        models: &Models,
    ) -> ort::Result<Self> {
        let api = ort::training::training_api()?;
        let mut session: *mut OrtTrainingSession = ptr::null_mut();
        // SAFETY: all pointers are live for the call, lengths are the buffers' own; ONNX Runtime copies the models.
        check(unsafe {
            (api.CreateTrainingSessionFromBuffer)(
                environment.ptr(),
                options.ptr(),
                checkpoint.ptr_mut(),
                models.training.as_ptr().cast(),
                models.training.len(),
                models.evaluation.as_ptr().cast(),
                models.evaluation.len(),
                models.optimizer.as_ptr().cast(),
                models.optimizer.len(),
                &mut session,
            )
        })?;
        let session = NonNull::new(session)
            .ok_or_else(|| ort::Error::new("no training session was returned"))?;
        Ok(Self {
            session,
            checkpoint,
            api,
            allocator: Allocator::default(),
            _environment: environment.clone(),
        })
    }

    pub(super) fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    pub(super) fn checkpoint_mut(&mut self) -> &mut Checkpoint {
        &mut self.checkpoint
    }

    pub(super) fn allocator(&self) -> &Allocator {
        &self.allocator
    }

    /// Names of the inputs that are not the session's own (parameters, gradient buffers), in order.
    pub(super) fn input_names(&self, graph: Graph) -> ort::Result<Vec<String>> {
        let (count, name) = match graph {
            Graph::Training => (
                self.api.TrainingSessionGetTrainingModelInputCount,
                self.api.TrainingSessionGetTrainingModelInputName,
            ),
            Graph::Evaluation => (
                self.api.TrainingSessionGetEvalModelInputCount,
                self.api.TrainingSessionGetEvalModelInputName,
            ),
        };
        self.names(count, name)
    }

    /// Names of the user's outputs, in order.
    pub(super) fn output_names(&self, graph: Graph) -> ort::Result<Vec<String>> {
        let (count, name) = match graph {
            Graph::Training => (
                self.api.TrainingSessionGetTrainingModelOutputCount,
                self.api.TrainingSessionGetTrainingModelOutputName,
            ),
            Graph::Evaluation => (
                self.api.TrainingSessionGetEvalModelOutputCount,
                self.api.TrainingSessionGetEvalModelOutputName,
            ),
        };
        self.names(count, name)
    }

    fn names(
        &self,
        count: unsafe extern "system" fn(*const OrtTrainingSession, *mut usize) -> OrtStatusPtr,
        name: unsafe extern "system" fn(
            *const OrtTrainingSession,
            usize,
            *mut ort::sys::OrtAllocator,
            *mut *const std::ffi::c_char,
        ) -> OrtStatusPtr,
    ) -> ort::Result<Vec<String>> {
        let mut number = 0;
        // SAFETY: the session is live and `number` outlives the call.
        check(unsafe { count(self.session.as_ptr(), &mut number) })?;
        (0..number)
            .map(|index| {
                let mut text = ptr::null();
                // SAFETY: the session and the allocator are live, the index is below the count.
                check(unsafe {
                    name(
                        self.session.as_ptr(),
                        index,
                        self.allocator.ptr().cast_mut(),
                        &mut text,
                    )
                })?;
                if text.is_null() {
                    return Err(ort::Error::new("a name without text was returned"));
                }
                // SAFETY: ONNX Runtime wrote a string with a closing NUL into this allocator's memory,
                // which is freed once, after it has been copied.
                unsafe {
                    let copied = CStr::from_ptr(text).to_string_lossy().into_owned();
                    self.allocator.free(text.cast_mut());
                    Ok(copied)
                }
            })
            .collect()
    }

    /// Runs one of the graphs; `inputs` and the result are in the order of the names.
    pub(super) fn run(
        &mut self,
        graph: Graph,
        inputs: &[DynValueRef<'_>],
        outputs: usize,
    ) -> ort::Result<Vec<DynTensor>> {
        let run = match graph {
            Graph::Training => self.api.TrainStep,
            Graph::Evaluation => self.api.EvalStep,
        };
        let inputs: Vec<*const OrtValue> = inputs.iter().map(|input| input.ptr()).collect();
        let mut values: Vec<*mut OrtValue> = vec![ptr::null_mut(); outputs];
        // SAFETY: both arrays have the lengths given and hold live values, or null for outputs to be made.
        check(unsafe {
            run(
                self.session.as_ptr(),
                ptr::null(),
                inputs.len(),
                inputs.as_ptr(),
                values.len(),
                values.as_mut_ptr(),
            )
        })?;
        values
            .into_iter()
            .map(|value| {
                let value = NonNull::new(value)
                    .ok_or_else(|| ort::Error::new("an output was not computed"))?;
                // SAFETY: the value was just made for the caller, who owns it, by the session's CPU allocator.
                Ok(unsafe { DynTensor::from_ptr(value, Some(&self.allocator)) })
            })
            .collect()
    }

    /// Updates the parameters from the gradients.
    pub(super) fn optimizer_step(&mut self, learning_rate: f32) -> ort::Result<()> {
        // SAFETY: the session is live; null stands for default run options.
        unsafe {
            check((self.api.SetLearningRate)(
                self.session.as_ptr(),
                learning_rate,
            ))?;
            check((self.api.OptimizerStep)(self.session.as_ptr(), ptr::null()))
        }
    }

    /// Makes the next training step overwrite the gradients instead of adding to them.
    pub(super) fn reset_gradients(&mut self) -> ort::Result<()> {
        // SAFETY: the session is live.
        check(unsafe { (self.api.LazyResetGrad)(self.session.as_ptr()) })
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        // SAFETY: the session is released once, before the checkpoint state that it refers to.
        unsafe { (self.api.ReleaseTrainingSession)(self.session.as_ptr()) }
    }
}

fn check(status: OrtStatusPtr) -> ort::Result<()> {
    // SAFETY: `status` was just returned by ONNX Runtime, and its ownership passes on.
    unsafe { ort::Error::result_from_status(status) }
}
