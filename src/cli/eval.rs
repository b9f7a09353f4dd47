//! `mpnet eval`: loss and accuracy of a model in any format on text.

use super::common::{ReadArgs, SeedArgs, TokenizerArgs};
use super::exit::UsageError;
use super::hardware::HardwareArgs;
use super::measures::MeasureArgs;
use super::values::count;
use crate::convert::Source;
use crate::convert::source::SourceOptions;
use crate::data::pairs::{RowKind, TextCut};
use crate::data::source::{Sources, endings};
use crate::data::{EvaluationSet, Masking, Tokenizer};
use crate::output::{complain, say};
use crate::stop::StopSignal;
use crate::train::engine::start;
use crate::train::evaluate::evaluate;
use crate::train::log::record::LossUnit;
use crate::train::measures::MeasureFiles;
use crate::train::ranks::Ranks;
use crate::train::tasks::TaskName;
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use mpnet_graphs::lower::ort_training::Options;
use mpnet_graphs::model::ranking::Ranking;
use mpnet_graphs::model::sentences::{SentenceLoss, Sentences};
use mpnet_graphs::model::{Objective, Task};
use mpnet_graphs::optimizer::adamw::AdamW;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Arguments of `mpnet eval`.
#[derive(Debug, Args)]
pub struct EvalArgs {
    /// A checkpoint, a run's folder (its best checkpoint is taken), a HuggingFace folder or name on the
    /// Hub, or a PyTorch file of annotated-mpnet or fairseq
    pub model: PathBuf,
    #[arg(long, value_name = "TEXT",
        help = format!("Evaluate on this text: a folder, a file or a pattern with *; {}", endings()))]
    pub text: Option<PathBuf>,
    /// Evaluate it at this task instead, by the measures below
    #[arg(long, value_enum, value_name = "TASK", conflicts_with = "text")]
    pub task: Option<TaskName>,
    #[command(flatten)]
    pub read: ReadArgs,
    #[command(flatten)]
    pub tokenizer: TokenizerArgs,
    /// Rows of a batch
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = count::<usize>)]
    pub batch_size: usize,
    /// Longest row, special tokens included [default: the model's longest]
    #[arg(long, value_name = "N", value_parser = count::<usize>)]
    pub max_tokens: Option<usize>,
    #[command(flatten)]
    pub seed: SeedArgs,
    #[command(flatten)]
    pub hardware: HardwareArgs,
    #[command(flatten)]
    pub measures: MeasureArgs,
    /// Print JSON instead of a line
    #[arg(long)]
    pub json: bool,
}

/// Evaluates.
///
/// # Errors
/// Where the model or the text cannot be read, or the engine fails.
pub fn run(args: &EvalArgs) -> Result<()> {
    let options = SourceOptions {
        tokenizer: args.tokenizer.tokenizer.clone(),
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
    let measures = args.measures.files()?;
    let Some(text) = &args.text else {
        return match (args.task, measures.is_empty()) {
            (Some(task), _) if !task.embeds() => Err(UsageError(
                "models of this task are evaluated by `mpnet finetune` alone, on --valid-pairs".into(),
            )
            .into()),
            (Some(_), false) => {
                embeddings(args, &source, tokenizer.with_special_as_text(), &measures)
            }
            (Some(_), true) => Err(UsageError(
                "--task embeddings needs something to measure by: --scored-pairs, --triplets, or --queries with \
                 --corpus and --relevant"
                    .into(),
            )
            .into()),
            (None, _) => Err(UsageError(
                "there is nothing to evaluate on: give --text, or --task embeddings with a measure".into(),
            )
            .into()),
        };
    };
    if !measures.is_empty() {
        return Err(UsageError(
            "embeddings are measured with --task embeddings, not on --text".into(),
        )
        .into());
    }
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
    let masking = masking(&source.run, model.objective)
        .with_context(|| format!("reading how {} was trained", source.path.display()))?;
    let (rows, seed) = (args.batch_size, args.seed.seed);
    let set = Sources::local(text, args.read.options())
        .and_then(|text| EvaluationSet::open(&text, &tokenizer, rows, longest, seed, &masking))
        .context("the text (--text)")?;
    let placement = args.hardware.execution().place();
    let loaded = placement.load(args.hardware.requested())?;
    let graph = Options {
        optimizer: AdamW::default(),
        gradient_checkpointing: false,
        expose: false,
    };
    let parameters = source.read_all()?;
    let mut running = start(&loaded, model, &graph, &parameters, &placement)?;
    drop(parameters);
    let (stop, unit) = (StopSignal::unheard(), LossUnit::BitsPerToken);
    let Some(found) = evaluate(&mut running, &set, &Ranks::alone(), &stop, unit)? else {
        bail!("the evaluation ended early");
    };
    for note in source.notes_of_checkpoint() {
        complain(&format!("note: {note}"));
    }
    let (loss, accuracy) = (found.loss, found.accuracy);
    match args.json {
        true => say!(
            "{}",
            json!({ "loss": loss, "accuracy": accuracy, "texts": set.rows() })
        )?,
        false => say!(
            "{} | {} texts | loss {loss:.4} {} | acc {accuracy:.4}",
            source.path.display(),
            set.rows(),
            unit.name()
        )?,
    }
    Ok(())
}

/// Measures the embeddings of `source`.
fn embeddings(
    args: &EvalArgs,
    source: &Source,
    tokenizer: Tokenizer,
    files: &MeasureFiles,
) -> Result<()> {
    let sentence = source.sentence_model()?;
    ensure!(
        !sentence.has_dense(),
        "{}: its embeddings go through a module Dense, which is not computed here",
        source.path.display()
    );
    let positions = source.model.max_positions;
    let cut = TextCut {
        max_tokens: args
            .max_tokens
            .unwrap_or(sentence.max_seq_length)
            .min(positions),
        lower_case: sentence.do_lower_case,
    };
    let task = Sentences {
        model: source.model.clone(),
        pooling: sentence.pooling.clone(),
        columns: 2,
        loss: SentenceLoss::Ranking(Ranking {
            scale: 1.0,
            symmetric: false,
        }),
        matryoshka: Vec::new(),
        gathered: false,
    };
    let shape = [args.batch_size.max(1), task.columns];
    let measures = files.open(&tokenizer, cut, shape, RowKind::Ranked { gathered: None })?;
    let placement = args.hardware.execution().place();
    let loaded = placement.load(args.hardware.requested())?;
    let graph = Options {
        optimizer: AdamW::default(),
        gradient_checkpointing: false,
        expose: false,
    };
    let trained: Vec<String> = task.parameters().into_iter().map(|p| p.name).collect();
    let parameters = source
        .parameters
        .iter()
        .filter(|p| trained.contains(&p.name));
    let parameters = parameters
        .map(|p| source.read(p))
        .collect::<Result<Vec<_>, _>>()?;
    let mut running = start(&loaded, &task, &graph, &parameters, &placement)?;
    drop(parameters);
    let figures = measures.measure(&mut running)?;
    if args.json {
        let figures: serde_json::Map<String, Value> = (figures.into_iter())
            .map(|(name, figure)| (name.to_owned(), figure.into()))
            .collect();
        say!("{}", Value::Object(figures))?;
        return Ok(());
    }
    let figures: Vec<String> = (figures.iter())
        .map(|(name, figure)| format!("{name} {figure:.4}"))
        .collect();
    say!("{} | {}", source.path.display(), figures.join(" | "))?;
    Ok(())
}

/// How the run with this configuration masked, where it was one of this program; else the usual way.
///
/// # Errors
/// Where its masking is there but makes no sense.
fn masking(run: &Value, objective: Objective) -> Result<Masking> {
    match run.get("masking") {
        Some(masking) => serde_json::from_value(masking.clone()).context("its masking"),
        None => Ok(Masking {
            objective,
            ..Masking::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_masking_that_cannot_be_read_is_no_usual_one() {
        let usual = masking(&Value::Null, Objective::Plm).unwrap();
        assert_eq!(usual.objective, Objective::Plm);
        let saved = Masking {
            pred_prob: 0.3,
            ..usual.clone()
        };
        let mut run = json!({ "masking": saved });
        assert_eq!(masking(&run, Objective::Mpnet).unwrap(), saved);
        run["masking"]["max_gram"] = json!("three");
        assert!(masking(&run, Objective::Mpnet).is_err());
    }
}
