//! `mpnet tokenizer`: makes tokenizers and says what one lacks.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, Subcommand};

use super::common::ReadArgs;
use super::dataset::DatasetArgs;
use super::exit;
use crate::data::hub::{Hub, HubSettings};
use crate::data::source::endings;
use crate::data::tokenizer::check;
use crate::data::tokenizer::training::TokenizerTraining;
use crate::data::{Sources, Tokenizer};
use crate::output::say;

/// Make a tokenizer, or check one
#[derive(Debug, Args)]
pub struct TokenizerArgs {
    #[command(subcommand)]
    verb: TokenizerVerb,
}

#[derive(Debug, Subcommand)]
enum TokenizerVerb {
    Train(TrainArgs),
    Check(CheckArgs),
}

/// Say what a tokenizer has of what MPNet needs, and how to mend the rest; exit code 1 where it can't be
/// trained with
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Tokenizer: a folder with tokenizer.json, or such a file
    #[arg(value_name = "NAME")]
    name: String,
}

/// Train a WordPiece tokenizer in MPNet's layout from text
#[derive(Debug, Args)]
pub struct TrainArgs {
    #[arg(
        help = format!("UTF-8 text: files, folders or patterns with *, of {}", endings()),
        required_unless_present = "dataset_name",
        conflicts_with = "dataset_name",
        value_name = "TEXT"
    )]
    texts: Vec<PathBuf>,

    #[command(flatten)]
    dataset: DatasetArgs,

    #[command(flatten)]
    read: ReadArgs,

    /// Train on the first N texts [default: all]
    #[arg(long, value_name = "N")]
    max_texts: Option<usize>,

    /// Write the files to this folder: tokenizer.json and tokenizer_config.json
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,

    /// Entries of the vocabulary, special tokens included
    #[arg(long, default_value_t = 30527, value_name = "N")]
    vocab_size: usize,

    /// How often a piece must occur to become an entry
    #[arg(long, default_value_t = 2, value_name = "N")]
    min_frequency: u64,

    /// Keep upper case and accents
    #[arg(long)]
    cased: bool,

    /// Longest row that the tokenizer's configuration names
    #[arg(long, default_value_t = 512, value_name = "N")]
    max_tokens: usize,
}

/// Runs `mpnet tokenizer`. Returns the exit code.
///
/// # Errors
/// When the text can't be read or the tokenizer can't be trained, written or read.
pub fn run(args: &TokenizerArgs) -> anyhow::Result<u8> {
    match &args.verb {
        TokenizerVerb::Train(args) => train(args).map(|()| exit::DONE),
        TokenizerVerb::Check(args) => check(args),
    }
}

fn check(args: &CheckArgs) -> anyhow::Result<u8> {
    let check = check::check(&args.name)?;
    say!("{}: {} tokens", check.path.display(), check.entries)?;
    for finding in &check.findings {
        let (word, part) = (finding.verdict.word(), finding.part);
        say!("{word:5}  {part:15}  {}", finding.said)?;
    }
    Ok(match check.usable() {
        true => {
            say!("it can be trained with")?;
            exit::DONE
        }
        false => {
            say!("it can't be trained with before that is mended")?;
            exit::FAILED
        }
    })
}

fn train(args: &TrainArgs) -> anyhow::Result<()> {
    let sources = sources(args)?;
    let options = TokenizerTraining {
        vocab_size: args.vocab_size,
        min_frequency: args.min_frequency,
        most_texts: args.max_texts,
        uncased: !args.cased,
        max_tokens: args.max_tokens,
    };
    let trained = options.train(&sources)?;
    trained.save(&args.output)?;
    // What was written must load, with every role in its place.
    let tokenizer = Tokenizer::load(&args.output.to_string_lossy())?;
    say!(
        "{}: {} entries from {} files, mask token {}{}",
        tokenizer.path().display(),
        tokenizer.vocab_size(),
        sources.shards().len(),
        tokenizer.mask_id(),
        if tokenizer.has_whole_words() {
            ""
        } else {
            "; too few word pieces for whole-word masking: take more text or a larger vocabulary"
        }
    )?;
    Ok(())
}

/// The text to train on.
fn sources(args: &TrainArgs) -> anyhow::Result<Sources> {
    let (dataset, options) = (&args.dataset, args.read.options());
    if let Some(name) = dataset.name() {
        let hub = Arc::new(Hub::new(HubSettings::from_env()));
        let (split, revision) = (&dataset.dataset_split, &dataset.dataset_revision);
        return Sources::dataset(&hub, name, split, revision, options)
            .with_context(|| format!("finding the dataset {} (--dataset-name)", name.name));
    }
    Ok(Sources::local_without(&args.texts, options, &[])?)
}
