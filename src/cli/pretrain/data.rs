//! The flags of the text and how it becomes batches.

use crate::cli::dataset::DatasetArgs;
use crate::cli::exit::UsageError;
use crate::data::BreakMode;
use crate::data::hub::DatasetName;
use crate::data::source::DEFAULT_FIELD;
use crate::train::config::{Batching, Dataset, Text, TextFiles};
use clap::Args;
use clap::builder::PossibleValuesParser;
use std::path::PathBuf;

/// What is trained on where nothing is named, as by annotated-mpnet.
pub const DEFAULT_DATASET: &str = "HuggingFaceFW/fineweb-edu";

/// The text to train on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Tokenizer: a folder with tokenizer.json, or a name on the HuggingFace Hub [default: that of
    /// --hf-model-path or of the checkpoint that is resumed, else microsoft/mpnet-base]
    #[arg(long)]
    pub tokenizer_name: Option<String>,
    /// Text to train on: a folder, a file or a pattern with *; .txt (one text a line), .jsonl, .json or
    /// .parquet, each also .gz or .zst
    #[arg(long)]
    pub train_dir: Option<PathBuf>,
    /// Text to validate on
    #[arg(long)]
    pub valid_file: Option<PathBuf>,
    /// Text to test on at the end
    #[arg(long)]
    pub test_file: Option<PathBuf>,
    #[command(flatten)]
    pub dataset: DatasetArgs,
    /// Field or column of the text in .jsonl, .json and .parquet
    #[arg(long, default_value = DEFAULT_FIELD)]
    pub text_field: String,
    /// Rows in the shuffle buffer
    #[arg(long, default_value_t = 10_000)]
    pub buffer_size: usize,
    /// Texts to validate on taken from a dataset, and as many to test on
    #[arg(long, default_value_t = 500)]
    pub eval_samples: usize,
    /// Shortest text that is trained on, in characters [default: 64 of a dataset, 0 of files]
    #[arg(long)]
    pub min_text_length: Option<usize>,
    /// How texts become rows: eos, a text a row, cut off; complete, whole texts as many as fit; none,
    /// texts one after the other, every row full; chunk, long texts over several rows
    #[arg(long, default_value = BreakMode::Eos.name(),
        value_parser = PossibleValuesParser::new(BreakMode::ALL.map(BreakMode::name)))]
    pub sample_break_mode: String,
    /// Put rows together as they come, not by their lengths
    #[arg(long)]
    pub no_group_by_length: bool,
    /// As many rows a micro-batch as this many tokens hold, padding included, instead of --batch-size
    #[arg(long, value_name = "N")]
    pub max_batch_tokens: Option<usize>,
    /// Threads that tokenize; 0 takes half of the cores
    #[arg(long, default_value_t = 0)]
    pub num_workers: usize,
}

impl DataArgs {
    /// The text, and how it becomes batches.
    ///
    /// # Errors
    /// Where there is only a part of it, or numbers contradict each other.
    pub fn resolve(&self, max_tokens: usize) -> Result<(Text, Batching), UsageError> {
        let text = self.text()?;
        let from_dataset = matches!(text, Text::Dataset(_));
        if let Some(limit) = self.max_batch_tokens
            && limit < max_tokens
        {
            return Err(UsageError(format!(
                "--max-batch-tokens {limit} has no room for a row of --max-tokens {max_tokens}"
            )));
        }
        if from_dataset && self.eval_samples == 0 {
            return Err(UsageError(
                "--eval-samples must be at least 1: a run validates and tests".into(),
            ));
        }
        let mode = &self.sample_break_mode;
        let batching = Batching {
            text_field: self.text_field.clone(),
            min_text_length: self
                .min_text_length
                .unwrap_or(if from_dataset { 64 } else { 0 }),
            sample_break_mode: BreakMode::from_name(mode)
                .ok_or_else(|| UsageError(format!("there is no break mode '{mode}'")))?,
            buffer_size: self.buffer_size.max(1),
            group_by_length: !self.no_group_by_length,
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
        let files = (&self.train_dir, &self.valid_file, &self.test_file);
        match (self.dataset.name(), files) {
            (Some(name), files) => {
                if files != (&None, &None, &None) {
                    tracing::warn!(
                        "--dataset-name wins: --train-dir, --valid-file and --test-file are not read"
                    );
                }
                Ok(dataset(name.clone()))
            }
            (None, (Some(train_dir), Some(valid_file), Some(test_file))) => {
                Ok(Text::Files(TextFiles {
                    train_dir: train_dir.clone(),
                    valid_file: valid_file.clone(),
                    test_file: test_file.clone(),
                }))
            }
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
