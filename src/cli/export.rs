//! `mpnet export`: a checkpoint's encoder for other programs.

use super::exit::UsageError;
use crate::convert::Source;
use crate::convert::source::SourceOptions;
use crate::export::{Format, OPSETS, Options, export};
use crate::output::{complain, say};
use anyhow::Result;
use clap::{Args, ValueEnum};
use mpnet_graphs::lower::export::Weights;
use mpnet_graphs::model::encoder::Head;
use std::path::PathBuf;
use std::time::Instant;

/// What stands on the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum HeadChoice {
    /// Nothing: last_hidden_state
    None,
    /// The language model head: logits
    Mlm,
    /// The mean over the tokens: last_hidden_state and sentence_embedding
    Sentence,
}

impl HeadChoice {
    /// The head, whose embeddings have length 1 where `normalize`.
    ///
    /// # Errors
    /// Where it has no embeddings.
    pub fn head(self, normalize: bool) -> Result<Head, UsageError> {
        match self {
            HeadChoice::None | HeadChoice::Mlm if normalize => Err(UsageError(
                "--normalize is for sentence embeddings: give --head sentence with it".into(),
            )),
            HeadChoice::None => Ok(Head::None),
            HeadChoice::Mlm => Ok(Head::MaskedLm),
            HeadChoice::Sentence => Ok(Head::Sentence { normalize }),
        }
    }
}

/// `--format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FormatChoice {
    /// A folder for ONNX Runtime, Optimum and sentence-transformers
    Onnx,
    /// A Cargo package that is a Burn module once it is built
    Burn,
}

/// `--dtype`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeChoice {
    Fp32,
    /// Weights and activations in fp16, outputs in fp32
    Fp16,
}

/// Arguments of `mpnet export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// A checkpoint, a run's folder (its best checkpoint is taken), a HuggingFace folder or name on the
    /// Hub, or a PyTorch file of annotated-mpnet or fairseq
    pub model: PathBuf,
    /// Folder to write
    #[arg(long, short, value_name = "FOLDER")]
    pub output: PathBuf,
    /// What is written around the ONNX model
    #[arg(long, value_enum, default_value_t = FormatChoice::Onnx)]
    pub format: FormatChoice,
    /// What stands on the encoder
    #[arg(long, value_enum, default_value_t = HeadChoice::None)]
    pub head: HeadChoice,
    /// Embeddings of length 1, with --head sentence
    #[arg(long)]
    pub normalize: bool,
    /// Version of ONNX's operators
    #[arg(long, default_value_t = 17, value_parser = clap::value_parser!(i64).range(OPSETS))]
    pub opset: i64,
    /// Arithmetic
    #[arg(long, value_enum, default_value_t = DtypeChoice::Fp32)]
    pub dtype: DtypeChoice,
    /// Weights of matrix products in 8 bits, a quarter of their size; the arithmetic stays fp32
    #[arg(long, conflicts_with = "dtype")]
    pub int8: bool,
    /// Tensors in a file of their own, as models above 2 GB always have them
    #[arg(long)]
    pub external_data: bool,
    /// Folder of the tokenizer [default: the model's own]
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
}

/// Exports.
///
/// # Errors
/// Where the model cannot be read or the folder not be written.
pub fn run(args: &ExportArgs) -> Result<()> {
    let start = Instant::now();
    if args.format == FormatChoice::Burn && (args.int8 || args.dtype != DtypeChoice::Fp32) {
        return Err(UsageError(
            "--format burn is written in fp32: leave --int8 and --dtype out".into(),
        )
        .into());
    }
    let head = args.head.head(args.normalize)?;
    let options = SourceOptions {
        tokenizer: args.tokenizer.clone(),
        only_own_tokenizer: false,
        no_optimizer: true,
    };
    let source = Source::open(&args.model, &options)?;
    let options = Options {
        format: match args.format {
            FormatChoice::Onnx => Format::Onnx,
            FormatChoice::Burn => Format::Burn,
        },
        head,
        opset: args.opset,
        weights: match (args.int8, args.dtype) {
            (true, _) => Weights::Int8,
            (false, DtypeChoice::Fp32) => Weights::F32,
            (false, DtypeChoice::Fp16) => Weights::F16,
        },
        external_data: args.external_data,
    };
    export(&source, &args.output, &options)?;
    for note in &source.notes {
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
