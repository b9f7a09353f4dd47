//! `mpnet import`: a HuggingFace model or PyTorch file as a native checkpoint.

use super::common::{SeedArgs, TokenizerArgs};
use crate::convert::Source;
use crate::convert::import::import;
use crate::convert::source::SourceOptions;
use crate::convert::weight_map::Layout;
use crate::output::{complain, say};
use anyhow::{Result, bail};
use clap::Args;
use std::path::PathBuf;

/// Arguments of `mpnet import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// A HuggingFace folder or name on the Hub, or a PyTorch file of annotated-mpnet or fairseq
    pub model: PathBuf,
    /// Write the checkpoint to this folder of checkpoints
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Leave annotated-mpnet's optimizer moments out
    #[arg(long)]
    pub no_optimizer: bool,
    #[command(flatten)]
    pub seed: SeedArgs,
}

/// Imports.
///
/// # Errors
/// Where the model cannot be read or the checkpoint not be written.
pub fn run(args: &ImportArgs) -> Result<()> {
    let options = SourceOptions {
        tokenizer: args.tokenizer.tokenizer.clone(),
        only_own_tokenizer: false,
        no_optimizer: args.no_optimizer,
    };
    let source = Source::open(&args.model, &options)?;
    if source.layout == Layout::Native {
        bail!(
            "{} is a native checkpoint already: use it as it is",
            source.path.display()
        );
    }
    let folder = import(&source, &args.output, args.seed.seed)?;
    for note in source.notes_of_checkpoint() {
        complain(&format!("note: {note}"));
    }
    say!(
        "{} → {} ({} tensors{})",
        source.path.display(),
        folder.display(),
        source.parameters.len(),
        match source.moments {
            Some(_) => ", with optimizer moments",
            None => "",
        }
    )?;
    Ok(())
}
