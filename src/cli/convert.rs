//! `convert-to-hf`: a checkpoint as a HuggingFace model folder.

use super::exit;
use super::export::HeadChoice;
use super::spelling::normalize;
use crate::convert::hf_config::head_difference;
use crate::convert::hf_folder::{WeightType, parse_size};
use crate::convert::source::SourceOptions;
use crate::convert::{HfOptions, Source, write_hf_folder};
use crate::output::{complain, say};
use anyhow::Result;
use clap::{Parser, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Convert a checkpoint to a HuggingFace model folder (MPNetForMaskedLM, or the encoder alone).
#[derive(Debug, Parser)]
#[command(name = "convert-to-hf", version)]
pub struct ConvertArgs {
    /// Checkpoint: a checkpoint-<step> folder, the folder of a run (its best one is taken), a PyTorch
    /// file of annotated-mpnet or fairseq, or the best_checkpoint.pt of either
    #[arg(long, value_name = "PATH")]
    pub mpnet_checkpoint_path: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "FOLDER")]
    pub hf_model_folder_path: PathBuf,
    /// Leave the tokenizer's files out
    #[arg(long)]
    pub no_save_tokenizer: bool,
    /// Folder of the tokenizer [default: the checkpoint's own]
    #[arg(long, value_name = "FOLDER", conflicts_with = "no_save_tokenizer")]
    pub tokenizer: Option<PathBuf>,
    /// What stands on the encoder; without mlm the folder is for AutoModel and sentence-transformers
    #[arg(long, value_enum, default_value_t = HeadChoice::Mlm)]
    pub head: HeadChoice,
    /// Embeddings of length 1, with --head sentence
    #[arg(long)]
    pub normalize: bool,
    /// Element type of the weights
    #[arg(long, value_enum, default_value_t = WeightTypeChoice::Float32)]
    pub dtype: WeightTypeChoice,
    /// Most bytes of weights in one file; larger models are written in shards
    #[arg(long, value_name = "SIZE", default_value = "5GB")]
    pub max_shard_size: String,
    /// Cut the padded vocabulary to the tokenizer's size
    #[arg(long)]
    pub trim_vocab: bool,
    /// Convert even where HuggingFace cannot represent the model
    #[arg(long)]
    pub force: bool,
}

/// `--dtype`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WeightTypeChoice {
    Float32,
    Float16,
    Bfloat16,
}

/// Parses `arguments` and converts. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let args = ConvertArgs::parse_from(normalize(arguments));
    exit::init_logging(false);
    let options = HfOptions {
        head: args.head.head(args.normalize)?,
        dtype: match args.dtype {
            WeightTypeChoice::Float32 => WeightType::Float32,
            WeightTypeChoice::Float16 => WeightType::Float16,
            WeightTypeChoice::Bfloat16 => WeightType::BFloat16,
        },
        max_shard_size: parse_size(&args.max_shard_size)?,
        trim_vocab: args.trim_vocab,
        tokenizer: !args.no_save_tokenizer,
        force: args.force,
    };
    let reading = SourceOptions {
        tokenizer: args.tokenizer,
        only_own_tokenizer: false,
        no_optimizer: true,
    };
    let source = Source::open(&args.mpnet_checkpoint_path, &reading)?;
    let target = &args.hf_model_folder_path;
    write_hf_folder(target, &source, &options)?;
    for note in &source.notes {
        complain(&format!("note: {note}"));
    }
    if let Some(difference) = head_difference(&source.model) {
        complain(&format!("note: {difference}"));
    }
    say!("{} → {}", source.path.display(), target.display())?;
    Ok(exit::DONE)
}
