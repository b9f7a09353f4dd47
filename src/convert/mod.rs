//! Checkpoints to and from HuggingFace's layout, driven by one weight-mapping table.

pub mod hf_config;
pub mod hf_folder;
pub mod weight_map;

pub use hf_config::{HfConfig, unrepresentable};
pub use hf_folder::write_hf_folder;

use std::path::PathBuf;

/// Why a conversion is refused or fails.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    #[error(
        "HuggingFace's MPNet cannot represent this model, its library would compute something else without a word: {}. --force converts it all the same", reasons.join("; ")
    )]
    Unrepresentable { reasons: Vec<String> },
    #[error("the model has no tensor '{name}'")]
    Missing { name: String },
    #[error("tensor '{name}' has shape {found:?}, expected {expected:?}")]
    Shape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("{} exists and holds other things than a model written by this program: choose another folder", path.display())]
    Occupied { path: PathBuf },
    #[error(
        "the checkpoint has no tokenizer: give --no-save-tokenizer to convert the weights alone"
    )]
    NoTokenizer,
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
    Encode { file: &'static str, reason: String },
}
