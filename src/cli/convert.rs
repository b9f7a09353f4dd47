//! `convert-to-hf`: a native checkpoint as a HuggingFace model folder.

use super::exit;
use super::spelling::normalize;
use crate::checkpoint::{self, Pointer};
use crate::convert::hf_config::head_difference;
use crate::convert::{ConvertError, write_hf_folder};
use anyhow::Result;
use clap::Parser;
use std::ffi::OsString;
use std::path::PathBuf;

/// Convert a checkpoint to a HuggingFace model folder (MPNetForMaskedLM).
#[derive(Debug, Parser)]
#[command(name = "convert-to-hf", version)]
pub struct ConvertArgs {
    /// Checkpoint: a checkpoint-<step> folder, the folder of a run (its best one is taken), or the
    /// best_checkpoint.pt of such a folder
    #[arg(long, value_name = "PATH")]
    pub mpnet_checkpoint_path: PathBuf,
    /// Folder to write
    #[arg(long, value_name = "FOLDER")]
    pub hf_model_folder_path: PathBuf,
    /// Leave the tokenizer's files out
    #[arg(long)]
    pub no_save_tokenizer: bool,
    /// Convert even where HuggingFace cannot represent the model
    #[arg(long)]
    pub force: bool,
}

/// Parses `arguments` and converts. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let args = ConvertArgs::parse_from(normalize(arguments));
    exit::init_logging(false);
    let folder = checkpoint::resolve(&args.mpnet_checkpoint_path, Pointer::Best)?;
    let found = checkpoint::load_model(&folder)?;
    let tokenizer = match (args.no_save_tokenizer, &found.tokenizer) {
        (true, _) => None,
        (false, Some(tokenizer)) => Some(tokenizer.as_path()),
        (false, None) => return Err(ConvertError::NoTokenizer.into()),
    };
    let target = &args.hf_model_folder_path;
    write_hf_folder(
        target,
        &found.model,
        &found.parameters,
        tokenizer,
        args.force,
    )?;
    if let Some(difference) = head_difference(&found.model) {
        eprintln!("note: {difference}");
    }
    println!("{} → {}", folder.display(), target.display());
    Ok(exit::DONE)
}
