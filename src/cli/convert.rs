//! `convert-to-hf`: a checkpoint as a HuggingFace model folder.

use super::common::TokenizerArgs;
use super::exit;
use super::export::HeadChoice;
use crate::convert::hf_config::head_difference;
use crate::convert::options::{WeightType, parse_size};
use crate::convert::source::SourceOptions;
use crate::convert::{HfOptions, Source, write_hf_folder};
use crate::output::{complain, say};
use anyhow::Result;
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;

/// What follows the list of flags.
const EXAMPLES: &str = "\
Examples:
  Convert the best checkpoint of a run:
    convert-to-hf --mpnet-checkpoint-path checkpoints --hf-model-folder-path my-model
  Make a model for sentence-transformers in half precision:
    convert-to-hf --mpnet-checkpoint-path checkpoints --hf-model-folder-path my-model --head sentence \
--normalize --dtype float16";

/// Convert a checkpoint to a HuggingFace model folder (MPNetForMaskedLM, or the encoder alone)
#[derive(Debug, Parser)]
#[command(name = "convert-to-hf", version, after_help = EXAMPLES)]
pub struct ConvertArgs {
    /// Convert this checkpoint: a checkpoint-N folder, the folder of a run (its best one is taken), a
    /// PyTorch file of annotated-mpnet or fairseq, or the best_checkpoint.pt of either
    #[arg(long, value_name = "PATH")]
    pub mpnet_checkpoint_path: PathBuf,
    /// Write this folder
    #[arg(long, value_name = "FOLDER")]
    pub hf_model_folder_path: PathBuf,
    /// Leave the tokenizer's files out
    #[arg(long, conflicts_with = "tokenizer")]
    pub no_save_tokenizer: bool,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Put this on the encoder; without mlm the folder is for AutoModel and sentence-transformers
    #[arg(long, value_enum, default_value_t = HeadChoice::Mlm)]
    pub head: HeadChoice,
    /// Scale embeddings to length 1, with --head sentence, where the model does not do so already
    #[arg(long)]
    pub normalize: bool,
    /// Store the weights in this type; fp32, fp16 and bf16 are understood too
    #[arg(long, value_enum, default_value_t)]
    pub dtype: WeightType,
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

/// Parses `arguments` and converts. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let args = ConvertArgs::parse_from(arguments);
    exit::init_logging(false)?;
    args.head.check(args.normalize)?;
    let max_shard_size = parse_size(&args.max_shard_size)?;
    let reading = SourceOptions {
        tokenizer: args.tokenizer.tokenizer,
        only_own_tokenizer: false,
        no_optimizer: true,
    };
    let source = Source::open(&args.mpnet_checkpoint_path, &reading)?;
    let options = HfOptions {
        head: args.head.head(&source, args.normalize)?,
        dtype: args.dtype,
        max_shard_size,
        trim_vocab: args.trim_vocab,
        tokenizer: !args.no_save_tokenizer,
        force: args.force,
    };
    let target = &args.hf_model_folder_path;
    write_hf_folder(target, &source, &options)?;
    for note in source.notes_of(&options.head, false) {
        complain(&format!("note: {note}"));
    }
    if let Some(difference) = head_difference(&source.model) {
        complain(&format!("note: {difference}"));
    }
    say!("{} → {}", source.path.display(), target.display())?;
    Ok(exit::DONE)
}
