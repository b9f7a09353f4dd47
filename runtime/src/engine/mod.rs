//! The trait through which a training loop drives ONNX Runtime, and the tensors that pass through it.

mod arena;
mod binding;
mod error;
pub mod session;
mod session_handle;
mod tensor;
pub mod training_api;

pub use error::EngineError;
pub use session::{SessionEngine, SessionOptions};
pub use training_api::{TrainingApiEngine, TrainingApiOptions};

pub use mpnet_plan::{NamedArray, Tensor, TensorData};

/// `Result` of this module.
pub type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What AdamW remembers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct OptimizerState {
    /// Updates made so far.
    pub step: i64,
    /// Running mean of the gradient, for each parameter.
    pub first_moments: Vec<NamedArray>,
    /// Running mean of the squared gradient, for each parameter.
    pub second_moments: Vec<NamedArray>,
    /// How the loss is scaled for 16-bit gradients; absent where it is not.
    pub loss_scaling: Option<LossScaling>,
}

/// Dynamic loss scaling: the factor and how long it has served.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct LossScaling {
    /// What the loss is multiplied by.
    pub scale: f32,
    /// Updates without overflow since it last changed.
    pub good: u32,
}

/// Executes the artifacts of one training run.
///
/// Inputs are found by name, in any order; the shape of each is checked against its length.
pub trait Engine {
    /// Runs forward and backward on one batch and adds to the gradients; returns the graph's outputs.
    ///
    /// # Errors
    /// An input is missing, unknown or of a wrong shape, or ONNX Runtime fails.
    fn train_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>>;

    /// Runs the evaluation graph on one batch and returns its outputs; nothing is learnt.
    ///
    /// # Errors
    /// An input is missing, unknown or of a wrong shape, or ONNX Runtime fails.
    fn eval_step(&mut self, inputs: &[&Tensor]) -> Result<Vec<Tensor>>;

    /// Says that the next training step is the last before an update. Where there are several ranks, they sum each
    /// gradient as soon as it is there; [`Engine::sum_gradients`] has to follow on all of them.
    fn before_last_step(&mut self) {}

    /// Begins to sum the gradients over the ranks, as far as that is not under way. All ranks have to come here, those
    /// too that made no step; then all of them either make the update or forget the gradients.
    ///
    /// # Errors
    /// The ranks do not come together.
    fn sum_gradients(&mut self) -> Result<()> {
        Ok(())
    }

    /// Updates the parameters from the gradients gathered since the last update, and forgets these gradients.
    /// Returns the norm that they had before clipping; where that is not finite, the parameters and the optimizer's state
    /// stay as they were.
    ///
    /// # Errors
    /// No [`Engine::train_step`] came before, or ONNX Runtime fails.
    fn optimizer_step(&mut self, learning_rate: f32) -> Result<f32>;

    /// Forgets the gradients gathered since the last update.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    fn forget_gradients(&mut self) -> Result<()>;

    /// One parameter.
    ///
    /// # Errors
    /// There is no such parameter, or ONNX Runtime fails.
    fn parameter(&mut self, name: &str) -> Result<NamedArray>;

    /// Every parameter, in the order of the engine's options. [`Engine::parameter`] needs less memory.
    ///
    /// # Errors
    /// ONNX Runtime fails.
    fn parameters(&mut self) -> Result<Vec<NamedArray>>;

    /// Replaces the parameters given; the others stay.
    ///
    /// # Errors
    /// A name or shape is not the model's; nothing is replaced then. Or ONNX Runtime fails.
    fn set_parameters(&mut self, parameters: &[NamedArray]) -> Result<()>;

    /// The optimizer's state.
    ///
    /// # Errors
    /// ONNX Runtime fails, or there is no room for a temporary file.
    fn optimizer_state(&mut self) -> Result<OptimizerState>;

    /// Replaces the optimizer's state: the step and both moments of every parameter. Gradients are forgotten.
    ///
    /// # Errors
    /// A moment is missing or of a wrong name or shape, or ONNX Runtime fails.
    fn set_optimizer_state(&mut self, state: OptimizerState) -> Result<()>;
}
