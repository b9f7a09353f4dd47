//! `mpnet export`: a checkpoint's encoder for other programs.

use super::common::TokenizerArgs;
use super::exit::UsageError;
use super::values::{count, precision};
use crate::convert::source::SourceOptions;
use crate::convert::{OutputHead, Source};
use crate::export::{Format, Layout, OPSETS, Options, export};
use crate::output::{complain, say};
use anyhow::Result;
use clap::{Args, ValueEnum};
use mpnet_graphs::ir::{Dim, Symbol};
use mpnet_graphs::lower::export::Weights;
use mpnet_graphs::model::encoder::TextSizes;
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

/// What is in 8 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Int8 {
    /// Embeddings and weights; of the arithmetic the runtime decides, and ONNX Runtime rounds what it multiplies by
    /// them to 8 bits, too
    Weights,
    /// Embeddings, weights and products by them, with a scale for each token: faster. On x86 processors without VNNI
    /// ONNX Runtime's sums of these may overflow
    Dynamic,
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
    /// Put the models there, under names that other programs look for
    #[arg(long, value_enum, default_value_t)]
    pub layout: Layout,
    /// Use this version of ONNX's operators: 17, or 20 for GELU as one operator. Others bring nothing that a model
    /// here would use
    #[arg(long, value_name = "VERSION", default_value_t = OPSETS[0], value_parser = opset)]
    pub opset: i64,
    /// Compute in this arithmetic, without --int8 fp32; outputs are always fp32. With several, separated by commas,
    /// a model for each
    #[arg(long, value_name = "PRECISION", value_delimiter = ',',
        value_parser = precision(&[Precision::F32, Precision::F16]))]
    pub dtype: Vec<Precision>,
    /// Store embeddings and the weights of matrix products in 8 bits, a quarter of their size; `dynamic` also multiplies
    /// in 8 bits. With --dtype, further models
    #[arg(long, value_enum, value_name = "WHAT", num_args = 0..=1, require_equals = true, value_delimiter = ',',
        default_missing_value = "weights")]
    pub int8: Vec<Int8>,
    /// Take this many texts a batch, and no other number
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub batch: Option<usize>,
    /// Take texts of this many tokens, and no other number
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub length: Option<usize>,
    /// Take inputs of 32 bits instead of 64
    #[arg(long)]
    pub int32_inputs: bool,
    /// Write tensors to a file of their own, as is always done for models above 2 GB
    #[arg(long)]
    pub external_data: bool,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
}

/// A version of ONNX's operators that is written.
fn opset(text: &str) -> Result<i64, String> {
    let known = OPSETS.iter().find(|opset| opset.to_string() == text);
    known.copied().ok_or_else(|| {
        let all: Vec<String> = OPSETS.iter().map(ToString::to_string).collect();
        format!("write {}", all.join(" or "))
    })
}

/// The forms of weights that are asked for, each once; fp32 where nothing is.
fn weights(args: &ExportArgs) -> Result<Vec<Weights>, UsageError> {
    let mut all = Vec::new();
    for dtype in &args.dtype {
        let weights = match dtype {
            Precision::F32 => Weights::F32,
            Precision::F16 => Weights::F16,
            Precision::BF16 => {
                return Err(UsageError("--dtype bf16: exports are fp32 or fp16".into()));
            }
        };
        if !all.contains(&weights) {
            all.push(weights);
        }
    }
    for int8 in &args.int8 {
        let weights = match int8 {
            Int8::Weights => Weights::Int8,
            Int8::Dynamic => Weights::Int8Dynamic,
        };
        if !all.contains(&weights) {
            all.push(weights);
        }
    }
    if all.is_empty() {
        all.push(Weights::F32);
    }
    Ok(all)
}

/// The sizes of a batch: those given, else any.
fn sizes(args: &ExportArgs, source: &Source) -> Result<TextSizes, UsageError> {
    let longest = source.model.max_positions;
    if let Some(length) = args.length.filter(|length| *length > longest) {
        return Err(UsageError(format!(
            "--length {length}: the model has {longest} positions"
        )));
    }
    let or = |given: Option<usize>, symbol: Symbol| given.map_or(symbol.into(), Dim::from);
    Ok(TextSizes {
        texts: or(args.batch, Symbol::BATCH),
        length: or(args.length, Symbol::LENGTH),
    })
}

/// Flags of an ONNX model that are given.
fn of_onnx(args: &ExportArgs) -> Vec<&'static str> {
    [
        ("--head", args.head != HeadChoice::None),
        ("--normalize", args.normalize),
        ("--layout", args.layout != Layout::default()),
        ("--opset", args.opset != OPSETS[0]),
        ("--dtype", !args.dtype.is_empty()),
        ("--int8", !args.int8.is_empty()),
        ("--batch", args.batch.is_some()),
        ("--length", args.length.is_some()),
        ("--int32-inputs", args.int32_inputs),
        ("--external-data", args.external_data),
    ]
    .into_iter()
    .filter_map(|(flag, given)| given.then_some(flag))
    .collect()
}

/// Exports.
///
/// # Errors
/// Where the model cannot be read or the folder not be written.
pub fn run(args: &ExportArgs) -> Result<()> {
    let start = Instant::now();
    let weights = weights(args)?;
    if args.format == Format::Burn && (weights != [Weights::F32] || args.layout != Layout::Optimum)
    {
        return Err(UsageError(
            "--format burn is one model in fp32: leave --int8, --dtype and --layout out".into(),
        )
        .into());
    }
    let to_annotated = args.format == Format::AnnotatedMpnet;
    let of_onnx = of_onnx(args);
    if to_annotated && !of_onnx.is_empty() {
        return Err(UsageError(format!(
            "--format annotated-mpnet is the whole model for pretraining in fp32, no ONNX: leave {} out",
            of_onnx.join(", ")
        ))
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
        head: match to_annotated {
            true => OutputHead::MaskedLm,
            false => args.head.head(&source, args.normalize)?,
        },
        layout: args.layout,
        opset: args.opset,
        weights,
        external_data: args.external_data,
        sizes: sizes(args, &source)?,
        int32_inputs: args.int32_inputs,
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
