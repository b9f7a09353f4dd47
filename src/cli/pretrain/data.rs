//! The flags of the text and how it becomes batches.

use crate::cli::exit::UsageError;
use crate::train::config::TextFiles;
use clap::Args;
use std::path::PathBuf;

/// The text to train on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Tokenizer: a folder with tokenizer.json
    #[arg(long, default_value = "microsoft/mpnet-base")]
    pub tokenizer_name: String,
    /// Folder of UTF-8 .txt files to train on, one text a line
    #[arg(long)]
    pub train_dir: Option<PathBuf>,
    /// Text to validate on
    #[arg(long)]
    pub valid_file: Option<PathBuf>,
    /// Text to test on at the end
    #[arg(long)]
    pub test_file: Option<PathBuf>,
    /// Dataset on the HuggingFace Hub
    #[arg(long)]
    pub dataset_name: Option<String>,
    /// Field of the text in a dataset
    #[arg(long, default_value = "text")]
    pub text_field: String,
    /// Rows in the shuffle buffer of a dataset
    #[arg(long, default_value_t = 10_000)]
    pub buffer_size: usize,
    /// Validation and test rows taken from a dataset
    #[arg(long, default_value_t = 500)]
    pub eval_samples: usize,
    /// Shortest text of a dataset that is used, in characters
    #[arg(long, default_value_t = 64)]
    pub min_text_length: usize,
    /// Threads that tokenize and mask; 0 takes half of the cores
    #[arg(long, default_value_t = 0)]
    pub num_workers: usize,
}

impl DataArgs {
    /// The text.
    ///
    /// # Errors
    /// Where there is none, or only a part.
    pub fn resolve(&self) -> Result<TextFiles, UsageError> {
        match (&self.train_dir, &self.valid_file, &self.test_file) {
            (Some(train_dir), Some(valid_file), Some(test_file)) => Ok(TextFiles {
                train_dir: train_dir.clone(),
                valid_file: valid_file.clone(),
                test_file: test_file.clone(),
            }),
            (None, None, None) => Err(UsageError(
                "no text to train on: give --train-dir, --valid-file and --test-file".into(),
            )),
            _ => Err(UsageError(
                "--train-dir, --valid-file and --test-file go together: give all three".into(),
            )),
        }
    }
}
