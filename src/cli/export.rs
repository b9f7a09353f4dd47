//! `mpnet export`: a checkpoint's encoder for other programs.

use super::common::TokenizerArgs;
use super::exit::UsageError;
use super::values::precision;
use crate::convert::source::SourceOptions;
use crate::convert::{OutputHead, Source};
use crate::export::{Format, OPSETS, Options, export};
use crate::output::{complain, say};
use anyhow::Result;
use clap::{Args, ValueEnum};
use mpnet_graphs::lower::export::Weights;
use mpnet_plan::Precision;
use std::path::PathBuf;
use std::time::Instant;

/// What stands on the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HeadChoice {
    /// Nothing: last_hidden_state
    None,
    /// The language model head: logits
    Mlm,
    /// Embeddings of texts, last_hidden_state and sentence_embedding: as a sentence-transformers folder
    /// says, of other models the mean over the tokens
    Sentence,
}

impl HeadChoice {
    /// The head of `source`, whose embeddings have length 1 where `normalize`, or where they have in a
    /// folder of sentence-transformers.
    ///
    /// # Errors
    /// Where it has no embeddings, or modules that cannot be kept.
    pub fn head(self, source: &Source, normalize: bool) -> Result<OutputHead> {
        self.check(normalize)?;
        Ok(match self {
            HeadChoice::None => OutputHead::None,
            HeadChoice::Mlm => OutputHead::MaskedLm,
            HeadChoice::Sentence => {
                let sentence = source.sentence_model()?;
                OutputHead::Sentence(if normalize {
                    sentence.normalized()
                } else {
                    sentence
                })
            }
        })
    }

    /// Refuses `--normalize` for a head without embeddings.
    ///
    /// # Errors
    /// Where that is asked for.
    pub fn check(self, normalize: bool) -> Result<(), UsageError> {
        if normalize && self != HeadChoice::Sentence {
            return Err(UsageError(
                "--normalize is for sentence embeddings: give --head sentence with it".into(),
            ));
        }
        Ok(())
    }
}

/// Arguments of `mpnet export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A checkpoint, a run's folder (its best checkpoint is taken), a HuggingFace folder or name on the
    /// Hub, or a PyTorch file of annotated-mpnet or fairseq
    pub model: PathBuf,
    /// Write this folder
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
    /// Write this around the ONNX model
    #[arg(long, value_enum, default_value_t)]
    pub format: Format,
    /// Put this on the encoder
    #[arg(long, value_enum, default_value_t = HeadChoice::None)]
    pub head: HeadChoice,
    /// Scale embeddings to length 1, with --head sentence, where the model does not do so already
    #[arg(long)]
    pub normalize: bool,
    /// Use this version of ONNX's operators
    #[arg(long, value_name = "VERSION", default_value_t = 17, value_parser = clap::value_parser!(i64).range(OPSETS))]
    pub opset: i64,
    /// Compute in this arithmetic; outputs are always fp32
    #[arg(long, value_name = "PRECISION", default_value = Precision::F32.name(),
        value_parser = precision(&[Precision::F32, Precision::F16]))]
    pub dtype: Precision,
    /// Store the weights of matrix products in 8 bits, a quarter of their size; the arithmetic stays fp32
    #[arg(long, conflicts_with = "dtype")]
    pub int8: bool,
    /// Write tensors to a file of their own, as is always done for models above 2 GB
    #[arg(long)]
    pub external_data: bool,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
}

/// Exports.
///
/// # Errors
/// Where the model cannot be read or the folder not be written.
pub fn run(args: &ExportArgs) -> Result<()> {
    let start = Instant::now();
    if args.format == Format::Burn && (args.int8 || args.dtype != Precision::F32) {
        return Err(UsageError(
            "--format burn is written in fp32: leave --int8 and --dtype out".into(),
        )
        .into());
    }
    args.head.check(args.normalize)?;
    let options = SourceOptions {
        tokenizer: args.tokenizer.tokenizer.clone(),
        only_own_tokenizer: false,
        no_optimizer: true,
    };
    let source = Source::open(&args.model, &options)?;
    let options = Options {
        format: args.format,
        head: args.head.head(&source, args.normalize)?,
        opset: args.opset,
        weights: match (args.int8, args.dtype) {
            (true, _) => Weights::Int8,
            (false, Precision::F32) => Weights::F32,
            (false, Precision::F16) => Weights::F16,
            (false, Precision::BF16) => {
                return Err(UsageError("--dtype bf16: exports are fp32 or fp16".into()).into());
            }
        },
        external_data: args.external_data,
    };
    export(&source, &args.output, &options)?;
    for note in source.notes_of(&options.head, true) {
        complain(&format!("note: {note}"));
    }
    say!(
        "{} → {} in {:.2} s",
        source.path.display(),
        args.output.display(),
        start.elapsed().as_secs_f64()
    )?;
    Ok(())
}
