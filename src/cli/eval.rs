//! `mpnet eval`: loss and accuracy of a model in any format on text.

use super::hardware::HardwareArgs;
use crate::convert::Source;
use crate::convert::source::SourceOptions;
use crate::data::source::Sources;
use crate::data::{EvaluationSet, Masking, Tokenizer};
use crate::output::{complain, say};
use crate::train::engine::start;
use crate::train::evaluate::evaluate;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::optimizer::adamw::AdamW;
use serde_json::json;
use std::path::PathBuf;

/// Arguments of `mpnet eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A checkpoint, a run's folder (its best checkpoint is taken), a HuggingFace folder or name on the
    /// Hub, or a PyTorch file of annotated-mpnet or fairseq
    pub model: PathBuf,
    /// Text, one text a line, or any file that pretrain-mpnet reads
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Field of the text, in files with fields
    #[arg(long, default_value = "text")]
    pub text_field: String,
    /// Folder of the tokenizer [default: the model's own]
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
    /// Rows of a batch
    #[arg(long, default_value_t = 16)]
    pub batch_size: usize,
    /// Longest row, special tokens included [default: the model's longest]
    #[arg(long)]
    pub max_tokens: Option<usize>,
    /// Seed of the masking; that of the run gives the run's own figures
    #[arg(long, default_value_t = 12_345)]
    pub seed: u64,
    /// ONNX Runtime to use
    #[arg(long, value_name = "PATH")]
    pub ort: Option<PathBuf>,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    /// Threads of ONNX Runtime [default: all cores]
    #[arg(long)]
    pub threads: Option<usize>,
    /// JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

/// Evaluates.
///
/// # Errors
/// Where the model or the text cannot be read, or the engine fails.
pub fn run(args: &EvalArgs) -> Result<()> {
    let options = SourceOptions {
        tokenizer: args.tokenizer.clone(),
        only_own_tokenizer: false,
        no_optimizer: true,
    };
    let source = Source::open(&args.model, &options)?;
    let Some(definition) = &source.tokenizer else {
        bail!(
            "{} has no tokenizer: --tokenizer names the folder of the tokenizer.json that it was trained with",
            source.path.display()
        );
    };
    let tokenizer = Tokenizer::load(&definition.to_string_lossy())?;
    let model = &source.model;
    ensure!(
        tokenizer.vocab_size() <= model.padded_vocab_size,
        "the tokenizer {} has {} entries, more than the {} of the model",
        definition.display(),
        tokenizer.vocab_size(),
        model.padded_vocab_size
    );
    let longest = args.max_tokens.unwrap_or(model.max_positions);
    ensure!(
        longest <= model.max_positions,
        "--max-tokens {longest}: the model has {} positions",
        model.max_positions
    );
    // As the run masked, where it was one of this program.
    let masking = serde_json::from_value(source.run["masking"].clone()).unwrap_or(Masking {
        objective: model.objective,
        ..Masking::default()
    });
    ensure!(
        args.text.is_file(),
        "--text {}: there is no such file",
        args.text.display()
    );
    let name = args.text.display().to_string();
    let (rows, seed) = (args.batch_size, args.seed);
    let set = Sources::files(name, std::slice::from_ref(&args.text), &args.text_field)
        .and_then(|text| EvaluationSet::open(&text, &tokenizer, rows, longest, seed, &masking))
        .context("the text (--text)")?;
    let execution = args.hardware.execution(args.threads);
    let loaded = execution.load(args.ort.clone())?;
    let graph = Options {
        optimizer: AdamW::default(),
        gradient_checkpointing: false,
        expose: false,
    };
    let parameters = source.read_all()?;
    let mut running = start(&loaded, model, &graph, &parameters, &execution)?;
    drop(parameters);
    let Some(found) = evaluate(running.engine.as_mut(), &set, |_| true)? else {
        bail!("the evaluation ended early");
    };
    for note in &source.notes {
        complain(&format!("note: {note}"));
    }
    let (loss, accuracy) = (found.loss, found.accuracy);
    match args.json {
        true => say!(
            "{}",
            json!({ "loss": loss, "accuracy": accuracy, "texts": set.rows() })
        )?,
        false => say!(
            "{} | {} texts | loss {loss:.4} bits per token | acc {accuracy:.4}",
            source.path.display(),
            set.rows()
        )?,
    }
    Ok(())
}
