//! Checkpoints to and from other programs' layouts, driven by one weight-mapping table.

mod annotated_mpnet;
pub mod hf_config;
pub mod hf_folder;
mod hf_weights;
pub mod import;
pub(crate) mod json;
pub mod model_card;
pub mod options;
mod plan;
mod positions;
pub mod pytorch;
mod safetensors_file;
pub mod sentence_transformers;
pub mod source;
mod tensors;
#[cfg(test)]
pub(crate) mod testing;
pub mod weight_map;

pub use annotated_mpnet::write_annotated_mpnet;
pub use hf_config::{HfConfig, unrepresentable};
pub use hf_folder::{check_target, write_hf_folder};
pub use options::{HfOptions, OutputHead, TaskHead};
pub use positions::resize_positions;
pub use source::{OtherKind, Source};

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// Why a conversion is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error(
        "HuggingFace's MPNet cannot represent this model, its library would compute something else without a word: {}. --force converts it all the same", reasons.join("; ")
    )]
    Unrepresentable { reasons: Vec<String> },
    #[error("{} has no tensor {}: it is no whole MPNet model of the sizes it says", path.display(), names.join(", "))]
    Missing { path: PathBuf, names: Vec<String> },
    #[error("tensor '{name}' in {} has shape {found:?}, expected {expected:?}", path.display())]
    Shape {
        path: PathBuf,
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("{} exists and holds other things than a model written by this program: choose another folder", path.display())]
    Occupied { path: PathBuf },
    #[error(
        "the model has no tokenizer.json: --tokenizer names a folder with one (transformers makes it of a \
         vocab.txt: AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)); --no-save-tokenizer converts \
         the weights alone"
    )]
    NoTokenizer,
    #[error(
        "there is no model at {}: expected a checkpoint folder, a HuggingFace folder, a PyTorch file or a name on the HuggingFace Hub{}",
        path.display(), hub.as_ref().map(|e| format!("; {e}")).unwrap_or_default()
    )]
    NotFound {
        path: PathBuf,
        /// What the Hub said, where it was asked.
        hub: Option<crate::data::hub::HubError>,
    },
    #[error("{} is refused: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} does not describe an MPNet model that can be read: {reason}", path.display())]
    Model { path: PathBuf, reason: String },
    #[error("--max-shard-size {0} is no size: give a number with kB, MB, GB, KiB, MiB or GiB")]
    Size(String),
    #[error(transparent)]
    Pointer(#[from] mpnet_runtime::lfs::LfsPointer),
    #[error(
        "the tokenizer {} is another than the model's own, {}: its ids would stand for other words. Leave it out, or accept it with --override",
        given.display(), own.display()
    )]
    OtherTokenizer { given: PathBuf, own: PathBuf },
    #[error(transparent)]
    Checkpoint(#[from] crate::checkpoint::CheckpointError),
    #[error(transparent)]
    Tokenizer(#[from] crate::data::DataError),
    #[error("cannot {doing} {}", path.display())]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("encoding {file}: {reason}")]
    Encode { file: String, reason: String },
    /// Modules of sentence-transformers that cannot be kept.
    #[error("{0}; --head none takes the encoder alone")]
    Modules(String),
    #[error("{}: {reason}", path.display())]
    Module { path: PathBuf, reason: String },
    #[error("{}", .0.said())]
    Other(OtherKind),
}

impl ConvertError {
    /// For `map_err` of a file operation.
    fn io(doing: &'static str, path: &Path) -> impl Fn(std::io::Error) -> ConvertError {
        move |source| ConvertError::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    }

    fn damaged(path: &Path, reason: impl Into<String>) -> ConvertError {
        ConvertError::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }

    fn model(path: &Path, reason: impl Into<String>) -> ConvertError {
        ConvertError::Model {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A folder with anything in it that is not `known` is not replaced, nor is a file.
fn refuse_strangers(target: &Path, known: fn(&OsStr) -> bool) -> Result<(), ConvertError> {
    if !target.exists() {
        return Ok(());
    }
    let occupied = || ConvertError::Occupied {
        path: target.to_owned(),
    };
    if !target.is_dir() {
        return Err(occupied());
    }
    for entry in fs::read_dir(target).map_err(ConvertError::io("read", target))? {
        let name = entry.map_err(ConvertError::io("read", target))?.file_name();
        if !known(&name) {
            return Err(occupied());
        }
    }
    Ok(())
}

/// Either end of a stream of tensors.
enum StreamFailure {
    Reading(ConvertError),
    Writing(std::io::Error),
}

impl StreamFailure {
    /// The error of writing `path`.
    fn of(self, path: &Path) -> ConvertError {
        match self {
            StreamFailure::Reading(error) => error,
            StreamFailure::Writing(error) => ConvertError::io("write", path)(error),
        }
    }
}

impl From<std::io::Error> for StreamFailure {
    fn from(error: std::io::Error) -> StreamFailure {
        StreamFailure::Writing(error)
    }
}

impl From<ConvertError> for StreamFailure {
    fn from(error: ConvertError) -> StreamFailure {
        StreamFailure::Reading(error)
    }
}
