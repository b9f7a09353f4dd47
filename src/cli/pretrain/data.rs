//! The flags of the text and how it becomes batches.

use super::mix::{self, DATASET_MIN_LENGTH, TrainDirs};
use crate::cli::common::ReadArgs;
use crate::cli::dataset::DatasetArgs;
use crate::cli::exit::UsageError;
use crate::cli::values::{count, named};
use crate::data::BreakMode;
use crate::data::hub::DatasetName;
use crate::data::source::endings;
use crate::train::config::{Batching, Dataset, Mix, Text, TextFiles};
use crate::train::flags::Effect;
use clap::Args;
use std::path::PathBuf;

/// What is trained on where nothing is named, as by annotated-mpnet.
pub const DEFAULT_DATASET: &str = "HuggingFaceFW/fineweb-edu";

/// The text to train on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Tokenize with this tokenizer: a folder with tokenizer.json, or a name on the HuggingFace Hub
    /// [default: that of --hf-model-path or of the checkpoint that is resumed, else microsoft/mpnet-base]
    ///
    /// The flag's name is annotated-mpnet's; the other commands call theirs --tokenizer.
    #[arg(long, value_name = "NAME", add = Effect::Updates(&["tokenizer"]))]
    pub tokenizer_name: Option<String>,
    #[arg(long, value_name = "TEXT[:WEIGHT]",
        add = Effect::Updates(&["text.files.train_dir"]),
        help = format!("Train on this text: a folder, a file or a pattern with *; {}; given several times, on \
            all of them, as one text, or mixed by their weights, as in DIR:0.7 [default: the dataset \
            {DEFAULT_DATASET}]", endings()))]
    pub train_dir: Vec<PathBuf>,
    /// Train on a mixture of texts: [[part]] tables with train-dir (as seen from the file's folder) or dataset-name,
    /// weight, and if need be text-field and min-text-length
    #[arg(long, value_name = "FILE.toml", add = Effect::Updates(&["text.mix"]))]
    pub mix: Option<PathBuf>,
    /// Validate on this text: a folder, a file or a pattern, like --train-dir
    #[arg(long, value_name = "TEXT", add = Effect::Updates(&["text.files.valid_file"]))]
    pub valid_file: Option<PathBuf>,
    /// Test on this text at the end: a folder, a file or a pattern, like --train-dir
    #[arg(long, value_name = "TEXT", add = Effect::Updates(&["text.files.test_file"]))]
    pub test_file: Option<PathBuf>,
    #[command(flatten)]
    pub dataset: DatasetArgs,
    #[command(flatten)]
    pub read: ReadArgs,
    /// Rows in the shuffle buffer
    #[arg(long, value_name = "N", default_value_t = 10_000,
        add = Effect::Updates(&["batching.buffer_size"]))]
    pub buffer_size: usize,
    /// Texts to validate on taken from a dataset, and as many to test on
    #[arg(long, value_name = "N", default_value_t = 500, value_parser = count::<usize>,
        add = Effect::Updates(&["text.dataset.eval_samples"]))]
    pub eval_samples: usize,
    /// Shortest text that is trained on, in characters [default: 64 of a dataset, 0 of files]
    #[arg(long, value_name = "N", add = Effect::Updates(&["batching.min_text_length"]))]
    pub min_text_length: Option<usize>,
    /// Make rows of texts like this: eos, a text a row, cut off; complete, whole texts as many as fit;
    /// none, texts one after the other, every row full; chunk, long texts over several rows
    #[arg(long, value_name = "MODE", default_value = BreakMode::Eos.name(),
        value_parser = named(&BreakMode::ALL, BreakMode::name),
        add = Effect::Updates(&["batching.sample_break_mode"]))]
    pub sample_break_mode: BreakMode,
    /// Take <s>, <pad>, <mask> and the like in the text for the tokens of that name, as annotated-mpnet does,
    /// and not for words
    #[arg(long, add = Effect::Updates(&["batching.special_in_text"]))]
    pub special_in_text: bool,
    /// Put rows together as they come, not by their lengths
    #[arg(long, add = Effect::Updates(&["batching.group_by_length"]))]
    pub no_group_by_length: bool,
    /// As many rows a micro-batch as this many tokens hold, padding included, instead of --batch-size
    #[arg(long, value_name = "N", add = Effect::Updates(&["batching.max_batch_tokens"]))]
    pub max_batch_tokens: Option<usize>,
    /// Threads that tokenize; 0 takes half of the cores
    #[arg(long, value_name = "N", default_value_t = 0,
        add = Effect::Surroundings(&["data_threads"]))]
    pub num_workers: usize,
}

impl DataArgs {
    /// The text, and how it becomes batches.
    ///
    /// # Errors
    /// Where there is only a part of it.
    pub fn resolve(&self) -> Result<(Text, Batching), UsageError> {
        let text = self.text()?;
        let from_dataset = matches!(text, Text::Dataset(_));
        let batching = Batching {
            text_field: self.read.options().fields,
            min_text_length: self.min_text_length.unwrap_or(if from_dataset {
                DATASET_MIN_LENGTH
            } else {
                0
            }),
            sample_break_mode: self.sample_break_mode,
            buffer_size: self.buffer_size.max(1),
            group_by_length: !self.no_group_by_length,
            special_in_text: self.special_in_text,
            max_batch_tokens: self.max_batch_tokens,
        };
        Ok((text, batching))
    }

    fn text(&self) -> Result<Text, UsageError> {
        let dataset = |name: DatasetName| {
            Text::Dataset(Dataset {
                name,
                split: self.dataset.dataset_split.clone(),
                revision: self.dataset.dataset_revision.clone(),
                eval_samples: self.eval_samples,
            })
        };
        let shortest = self.min_text_length;
        let parts = match (&self.mix, self.train_dir.as_slice()) {
            (Some(path), given) => {
                if !given.is_empty() {
                    tracing::warn!("--mix wins: --train-dir is not read");
                }
                Some(TrainDirs::Mix(mix::read(path, shortest)?))
            }
            (None, []) => None,
            (None, given) => Some(mix::train_dirs(given, shortest)?),
        };
        match (
            self.dataset.name(),
            (parts, &self.valid_file, &self.test_file),
        ) {
            (Some(_), (Some(TrainDirs::Mix(_)), _, _)) => Err(UsageError(
                "--dataset-name and a mixture: put the dataset into the file of --mix".into(),
            )),
            (Some(name), (parts, valid_file, test_file)) => {
                if parts.is_some() || valid_file.is_some() || test_file.is_some() {
                    tracing::warn!(
                        "--dataset-name wins: --train-dir, --valid-file and --test-file are not read"
                    );
                }
                Ok(dataset(name.clone()))
            }
            (None, (Some(parts), Some(valid_file), Some(test_file))) => {
                let (valid_file, test_file) = (valid_file.clone(), test_file.clone());
                Ok(match parts {
                    TrainDirs::One(train_dir) => Text::Files(TextFiles {
                        train_dir,
                        valid_file,
                        test_file,
                    }),
                    TrainDirs::Mix(parts) => Text::Mix(Mix {
                        parts,
                        valid_file,
                        test_file,
                    }),
                })
            }
            (None, (Some(TrainDirs::Mix(_)), _, _)) => Err(UsageError(
                "a mixture is validated and tested on files: give --valid-file and --test-file"
                    .into(),
            )),
            (None, (None, None, None)) => Ok(dataset(DatasetName {
                name: DEFAULT_DATASET.to_owned(),
                config: None,
            })),
            (None, _) => Err(UsageError(
                "--train-dir, --valid-file and --test-file go together: give all three".into(),
            )),
        }
    }
}
