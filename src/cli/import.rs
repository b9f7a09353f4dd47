//! `mpnet import`: a HuggingFace model or PyTorch file as a native checkpoint.

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
    /// Folder of checkpoints to write to
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Folder of the tokenizer [default: the model's own]
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
    /// Leave annotated-mpnet's optimizer moments out
    #[arg(long)]
    pub no_optimizer: bool,
    /// Seed of the order of the text, for a run that goes on from the checkpoint
    #[arg(long, default_value_t = 12_345)]
    pub seed: u64,
}

/// Imports.
///
/// # Errors
/// Where the model cannot be read or the checkpoint not be written.
pub fn run(args: &ImportArgs) -> Result<()> {
    let options = SourceOptions {
        tokenizer: args.tokenizer.clone(),
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
    let folder = import(&source, &args.output, args.seed)?;
    for note in &source.notes {
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
