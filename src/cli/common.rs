//! Flags that several commands have.

use crate::data::source::{DEFAULT_FIELD, ReadOptions};
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

/// How text is read.
#[derive(Debug, Clone, Args)]
pub struct ReadArgs {
    /// Take the text from this field or column, where there are any; a.b goes into objects and lists; given
    /// several times, their texts are joined
    #[arg(long, value_name = "NAME", default_value = DEFAULT_FIELD,
        add = Effect::Updates(&["batching.text_field"]))]
    pub text_field: Vec<String>,
    #[command(flatten)]
    pub bad_rows: BadRowArgs,
}

/// What is done about rows that can't be read.
#[derive(Debug, Clone, Args)]
pub struct BadRowArgs {
    /// Pass over so many rows that can't be read, in one pass over the text, before the next one ends the
    /// run
    #[arg(long, value_name = "N", default_value_t = 0, add = Effect::Surroundings(&[]))]
    pub max_bad_rows: u64,
}

impl ReadArgs {
    /// The same for the reader.
    pub fn options(&self) -> ReadOptions {
        ReadOptions {
            fields: self.text_field.clone().into(),
            max_bad_rows: self.bad_rows.max_bad_rows,
        }
    }
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
