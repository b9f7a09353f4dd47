//! Flags that several commands have.

use crate::data::source::DEFAULT_FIELD;
use crate::train::flags::Effect;
use clap::Args;
use std::path::PathBuf;

// A flag of `pretrain-mpnet` carries what it decides, see `train::flags`.
impl clap::builder::ArgExt for Effect {}

/// Which build of ONNX Runtime.
#[derive(Debug, Clone, Args)]
pub struct OrtArgs {
    /// Use this ONNX Runtime: a library or wheel, or a folder that holds one [default: one from the
    /// cache, fetched if there is none]
    #[arg(long, value_name = "PATH", add = Effect::Surroundings(&["ort"]))]
    pub ort: Option<PathBuf>,
}

/// The field of the text.
#[derive(Debug, Clone, Args)]
pub struct TextFieldArgs {
    /// Take the text from this field or column of .jsonl, .json and .parquet
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FIELD,
        add = Effect::Updates(&["batching.text_field"]))]
    pub text_field: String,
}

/// The tokenizer of a model that is read.
#[derive(Debug, Clone, Args)]
pub struct TokenizerArgs {
    /// Take the tokenizer from this folder [default: the model's own]
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
}

/// The seed.
#[derive(Debug, Clone, Args)]
pub struct SeedArgs {
    /// Draw everything random from this seed: initial values, order of the text, masking and dropout
    #[arg(long, value_name = "N", default_value_t = 12_345, add = Effect::Updates(&["seed"]))]
    pub seed: u64,
}
