//! `mpnet finetune`: a model trained on, for a task of its own.

mod embeddings;
mod rows;

use super::dataset::DatasetArgs;
use super::exit::{self, UsageError};
use super::measures::{BestName, MeasureArgs};
use super::spelling::normalize;
use super::training::{OwnSettings, RunArgs, matches, train};
use super::values::{below_one, count, positive};
use crate::checkpoint;
use crate::convert::options::WeightType;
use crate::convert::source::SourceOptions;
use crate::convert::{HfOptions, OutputHead, Source, check_target, write_hf_folder};
use crate::data::batch_problem;
use crate::launch::Launch;
use crate::output::{complain, say};
use crate::train::config::{TaskConfig, TrainConfig};
use crate::train::flags::Effect;
use crate::train::tasks::classification::Classification;
use crate::train::tasks::{AnyTask, Dropout, Finetuning, TaskName};
use anyhow::{Context, Result};
use clap::{Args, Command, CommandFactory, FromArgMatches, Parser};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What follows the list of flags.
const EXAMPLES: &str = "\
Examples:
  Train sentence embeddings on the columns anchor and positive of a file:
    mpnet finetune checkpoints --task embeddings --train-pairs pairs.jsonl --output my-model
  On questions and answers, with a set kept aside:
    mpnet finetune sentence-transformers/all-mpnet-base-v2 --task embeddings --columns question,answer \
--train-pairs train.parquet --valid-pairs valid.parquet --output my-model";

/// Train a model for a task: sentence embeddings, for sentence-transformers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct FinetuneArgs {
    /// A checkpoint, a run's folder (its best checkpoint is taken), a HuggingFace or sentence-transformers folder or
    /// name on the Hub, or a PyTorch file of annotated-mpnet or fairseq
    #[arg(add = Effect::Surroundings(&["start_from"]))]
    pub model: PathBuf,
    /// Train it for this
    #[arg(long, value_enum, value_name = "TASK", add = Effect::Updates(&["task"]))]
    pub task: TaskName,
    /// Write the model that comes out to this folder, for sentence-transformers
    #[arg(long, short, value_name = "FOLDER", add = Effect::Surroundings(&[]))]
    pub output: PathBuf,
    #[command(flatten)]
    pub rows: rows::RowArgs,
    #[command(flatten)]
    pub embeddings: embeddings::EmbeddingArgs,
    #[command(flatten)]
    pub dropout: DropoutArgs,
    #[command(flatten)]
    pub measures: MeasureArgs,
    /// Choose the best checkpoint by this [default: what is measured of --queries, --scored-pairs or --triplets, the first
    /// of these that is given; else the loss]
    #[arg(long, value_enum, value_name = "FIGURE", help_heading = "Measures of embeddings", requires = "valid_pairs",
        add = Effect::Surroundings(&["best_by"]))]
    pub best_by: Option<BestName>,
    #[command(flatten)]
    pub run: RunArgs,
}

/// Dropout while the model is trained on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Model")]
pub struct DropoutArgs {
    /// Dropout after the embeddings and each sublayer [default: the model's]
    #[arg(long, value_name = "SHARE", value_parser = below_one, add = Effect::Updates(&["dropout"]))]
    pub dropout: Option<f32>,
    /// Dropout of the attention probabilities [default: the model's]
    #[arg(long, value_name = "SHARE", value_parser = below_one,
        add = Effect::Updates(&["attention_dropout"]))]
    pub attention_dropout: Option<f32>,
    /// Dropout after the feed-forward activation [default: the model's]
    #[arg(long, value_name = "SHARE", value_parser = below_one,
        add = Effect::Updates(&["activation_dropout"]))]
    pub activation_dropout: Option<f32>,
}

/// The command by itself, whose flags `--config` may hold.
#[derive(Debug, Parser)]
#[command(
    name = "finetune",
    bin_name = "mpnet finetune",
    version,
    args_override_self = true
)]
struct Alone {
    #[command(flatten)]
    args: FinetuneArgs,
}

/// `command` with what is usual where a trained model goes on: the flags are those of pretraining, their defaults not.
pub fn with_defaults(command: Command) -> Command {
    [
        ("total_updates", "1000"),
        ("batch_size", "32"),
        ("update_freq", "1"),
        ("lr", "2e-5"),
        ("beta2", "0.999"),
        ("adam_eps", "1e-8"),
    ]
    .into_iter()
    .fold(command, |command, (name, value)| {
        command.mut_arg(name, |argument| argument.default_value(value))
    })
}

impl FinetuneArgs {
    /// The run that these flags ask for, of which this process is the rank that `launch` says, from the model `source`.
    ///
    /// # Errors
    /// Where they contradict each other or ask for what is not there.
    fn resolve(&self, launch: Launch, source: &Source) -> Result<TrainConfig, UsageError> {
        let optimization = &self.run.optimization;
        let positions = source.model.max_positions;
        let own = source.sentence_model().ok();
        let own = own.map_or(positions, |sentence| sentence.max_seq_length);
        let max_tokens = self.rows.max_tokens.unwrap_or(own.min(positions));
        if max_tokens > positions {
            return Err(UsageError(format!(
                "--max-tokens {max_tokens}: the model has {positions} positions"
            )));
        }
        if optimization.batch_size < 2 {
            return Err(UsageError(
                "--batch-size 1 leaves an anchor no other row's texts to be told from: take 2 or more".into(),
            ));
        }
        let at_once = self.embeddings.mini_batch_size;
        let rows = at_once
            .unwrap_or(optimization.batch_size)
            .saturating_mul(self.rows.columns.len().max(2));
        if let Some(problem) = batch_problem(rows, None, max_tokens) {
            return Err(UsageError(problem));
        }
        let measures = self.measures.files()?;
        if !measures.is_empty() && self.rows.valid_pairs.is_none() {
            return Err(UsageError(
                "embeddings are measured whenever the run is validated: give --valid-pairs, too"
                    .into(),
            ));
        }
        let folder = |path: &Path| std::path::absolute(path).ok();
        if folder(&self.output) == folder(&self.run.checkpoints.checkpoint_dir) {
            return Err(UsageError(format!(
                "--output and --checkpoint-dir are both {}: the model that comes out needs a folder of its own",
                self.output.display()
            )));
        }
        let best_by = measures.best_by(self.best_by)?;
        let task = match self.task {
            TaskName::Embeddings => {
                let width = source.model.encoder_embed_dim;
                AnyTask::Embeddings(self.embeddings.task(measures, width)?)
            }
            TaskName::Classification => {
                self.embeddings.refuse_for("classification")?;
                if !measures.is_empty() {
                    return Err(UsageError(
                        "classes are no embeddings to be measured: leave out --scored-pairs, --triplets and --queries"
                            .into(),
                    ));
                }
                AnyTask::Classification(Classification::default())
            }
        };
        let DropoutArgs {
            dropout,
            attention_dropout,
            activation_dropout,
        } = self.dropout;
        let task = TaskConfig::Finetuning(Finetuning {
            rows: self.rows.rows()?,
            dropout: Dropout {
                dropout,
                attention_dropout,
                activation_dropout,
            },
            best_by,
            task,
        });
        let own = OwnSettings {
            tokenizer: self.rows.tokenizer.clone(),
            max_tokens,
            data_threads: 0,
            start_from: Some(self.model.clone()),
            max_bad_rows: self.rows.bad_rows.max_bad_rows,
        };
        self.run.config(task, own, launch)
    }
}

/// Parses `arguments`, which follow the name of the verb, and trains. Returns the exit code.
///
/// # Errors
/// Where anything fails.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let command = with_defaults(Alone::command());
    let matches = matches(&command, normalize(arguments, &command))?;
    let Alone { args } = Alone::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    exit::init_logging(args.run.logging.debug)?;
    let reading = SourceOptions {
        tokenizer: args.rows.tokenizer.as_ref().map(PathBuf::from),
        only_own_tokenizer: !args.run.checkpoints.accept_changes,
        no_optimizer: true,
    };
    let mut start = None;
    let resolve = |launch: Launch| -> Result<TrainConfig> {
        let source = Source::open(&args.model, &reading)
            .with_context(|| format!("opening the model {}", args.model.display()))?;
        let config = args.resolve(launch, &source)?;
        // What would keep it from being written is found now.
        check_target(&args.output)?;
        comes_out(&config, &source, &Value::Null)?;
        start = Some(source);
        Ok(config)
    };
    let (code, finished) = train(&command, &matches, &args.run, resolve)?;
    if let (Some(config), Some(start)) = (finished, start)
        && config.launch.writes()
        && !config.operation.dry_run
    {
        write(&args.output, &config, &start)?;
    }
    Ok(code)
}

/// What stands on the encoder of the model that comes out of `config`, which begins with `start`; `run` are its settings as
/// a checkpoint has them, null before it begins.
fn comes_out(config: &TrainConfig, start: &Source, run: &Value) -> Result<OutputHead> {
    let TaskConfig::Finetuning(task) = &config.task else {
        anyhow::bail!("it trains for no task");
    };
    task.comes_out(start, run, config.max_tokens)
}

/// Writes the best checkpoint of the run `config`, which began with `start`, as the folder `output`.
fn write(output: &Path, config: &TrainConfig, start: &Source) -> Result<()> {
    let best = checkpoint::resolve(&config.checkpoint_dir, checkpoint::Pointer::Best)?;
    let source = Source::open(&best, &SourceOptions::default())?;
    let head = comes_out(config, start, &source.run)?;
    let options = HfOptions {
        head,
        dtype: WeightType::default(),
        max_shard_size: 5_000_000_000,
        trim_vocab: false,
        tokenizer: true,
        force: false,
    };
    write_hf_folder(output, &source, &options)?;
    for note in source.notes_of(&options.head, false) {
        complain(&format!("note: {note}"));
    }
    say!("{} → {}", best.display(), output.display())?;
    Ok(())
}
