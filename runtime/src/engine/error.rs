//! What can go wrong while an engine runs.

use std::path::PathBuf;

use mpnet_plan::Provider;

use crate::checkpoint_file::CheckpointFileError;
use crate::collective::CollectiveError;
use crate::library::LibraryError;
use crate::processor::NoBf16;

/// An error of [`crate::engine`].
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The loaded build does not fit.
    #[error(transparent)]
    Library(#[from] LibraryError),
    /// The training-api engine does not run there.
    #[error("the training API has no build for the provider {provider}; use --engine session")]
    Provider {
        /// The provider asked for.
        provider: Provider,
    },
    /// The processor cannot multiply in the arithmetic of the models.
    #[error(transparent)]
    NoBf16(#[from] NoBf16),
    /// The build lacks the provider, or it cannot be set up on this machine.
    #[error(
        "this build of ONNX Runtime cannot run on {provider}; `mpnet doctor` says what is missing"
    )]
    ProviderSetUp {
        /// The provider asked for.
        provider: Provider,
        /// ONNX Runtime's message.
        source: ort::Error,
    },
    /// An artifact or a temporary file could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb phrase.
        doing: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// ONNX Runtime refused or failed.
    #[error("ONNX Runtime failed to {doing}")]
    Runtime {
        /// What was being done, as a verb phrase.
        doing: String,
        /// ONNX Runtime's message.
        source: ort::Error,
    },
    /// A model that the provider does not run.
    #[error("the {which} model cannot be loaded on {provider}{hint}")]
    Load {
        /// Which of the models.
        which: &'static str,
        /// The provider asked for.
        provider: Provider,
        /// Which nodes it lacks, where that is the reason; with what to do.
        hint: String,
        /// ONNX Runtime's message.
        source: ort::Error,
    },
    /// An input that the graph does not take.
    #[error("the {graph} graph takes no input '{name}', only: {}", known.join(", "))]
    UnknownInput {
        /// "training" or "evaluation".
        graph: &'static str,
        /// The name given.
        name: String,
        /// The graph's inputs.
        known: Vec<String>,
    },
    /// An input that the graph needs and did not get.
    #[error("the {graph} graph needs the input '{name}', which was not given")]
    MissingInput {
        /// "training" or "evaluation".
        graph: &'static str,
        /// The missing name.
        name: String,
    },
    /// One name twice.
    #[error("'{name}' was given twice")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// A tensor whose length is not what its shape says.
    #[error("'{name}' has the shape {shape:?} but {length} elements")]
    Length {
        /// The tensor.
        name: String,
        /// Its shape.
        shape: Vec<usize>,
        /// Its number of elements.
        length: usize,
    },
    /// A training output that is no single number.
    #[error(
        "output '{name}' of the training graph has the shape {shape:?}; only single numbers are copied out of a training step"
    )]
    NotScalar {
        /// The output.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
    },
    /// An output of a type that this program has no use for.
    #[error("output '{name}' has the element type {found}, which is not read here")]
    OutputType {
        /// The output.
        name: String,
        /// Its element type.
        found: String,
    },
    /// The training graph lacks the output that tells the gradient norm.
    #[error("the training graph has no output '{name}' for the gradient norm, only: {}", outputs.join(", "))]
    NoGradientNorm {
        /// The name asked for.
        name: String,
        /// The graph's outputs.
        outputs: Vec<String>,
    },
    /// An optimizer step without gradients.
    #[error("an optimizer step needs a training step before it: there are no gradients")]
    NoGradients,
    /// A training step after the gradients of the update were given to the other ranks.
    #[error(
        "the ranks are summing their gradients: an update has to be made, or they have to be forgotten, before the next training step"
    )]
    Summed,
    /// A name that is no parameter of the model.
    #[error("the model has no parameter '{name}'")]
    UnknownParameter {
        /// The name given.
        name: String,
    },
    /// A parameter of the model that was given no value.
    #[error("the parameter '{name}' was given no value")]
    MissingParameter {
        /// The parameter.
        name: String,
    },
    /// A parameter of the checkpoint that the options don't name.
    #[error("the checkpoint has the parameter '{name}', which was not listed among the model's")]
    UnlistedParameter {
        /// The parameter.
        name: String,
    },
    /// A parameter or moment of another shape than the model's.
    #[error("'{name}' has the shape {given:?}, the model's has {expected:?}")]
    ParameterShape {
        /// The parameter.
        name: String,
        /// The shape given.
        given: Vec<usize>,
        /// The model's shape.
        expected: Vec<usize>,
    },
    /// A parameter of another type than f32.
    #[error("parameter '{name}' is no tensor of 32-bit floats in the checkpoint")]
    ParameterType {
        /// The parameter.
        name: String,
    },
    /// An optimizer state that lacks a moment.
    #[error("the optimizer state has no {which} moment of '{name}'")]
    MissingMoment {
        /// "first" or "second".
        which: &'static str,
        /// The parameter.
        name: String,
    },
    /// A plan for another number of ranks.
    #[error(
        "the models were compiled for an optimizer that {shards} ranks share, but there are {world_size}"
    )]
    Shards {
        /// The plan's.
        shards: usize,
        /// The ranks that there are.
        world_size: usize,
    },
    /// The ranks could not do something together.
    #[error(transparent)]
    Collective(#[from] CollectiveError),
    /// A checkpoint file could not be made or understood.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointFileError),
}

impl EngineError {
    /// Adds what was being done to an error of ONNX Runtime.
    pub(super) fn runtime(doing: impl Into<String>) -> impl FnOnce(ort::Error) -> Self {
        let doing = doing.into();
        move |source| Self::Runtime { doing, source }
    }

    /// Adds the act and the path to an I/O error.
    pub(super) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
