//! The flags of the rows that a model is trained on.

use super::{DatasetArgs, UsageError, count};
use crate::cli::common::BadRowArgs;
use crate::data::source::endings;
use crate::train::flags::Effect;
use crate::train::tasks::rows::{RowDataset, RowFiles, RowText, Rows};
use clap::Args;
use std::path::PathBuf;

/// Rows of texts.
#[derive(Debug, Args)]
#[command(next_help_heading = "Data")]
pub struct RowArgs {
    #[arg(long, value_name = "ROWS", add = Effect::Updates(&["text.files.train_pairs"]),
        help = format!("Train on these rows of several texts: a folder, a file or a pattern with *; {}", endings()))]
    pub train_pairs: Option<PathBuf>,
    /// Validate on these rows, and keep the checkpoint that is best on them: as --train-pairs
    #[arg(long, value_name = "ROWS",
        add = Effect::Updates(&["text.files.valid_pairs", "text.dataset.valid_pairs"]))]
    pub valid_pairs: Option<PathBuf>,
    /// Take texts, and what stands behind them, from these columns, in this order: anchor, positive and any negatives,
    /// for instance, or two texts and their score [default: the usual ones of the loss]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', add = Effect::Updates(&["columns"]))]
    pub columns: Vec<String>,
    #[command(flatten)]
    pub dataset: DatasetArgs,
    #[command(flatten)]
    pub bad_rows: BadRowArgs,
    /// Tokenize with the tokenizer in this folder [default: the model's own]
    #[arg(long, value_name = "FOLDER", add = Effect::Updates(&["tokenizer"]))]
    pub tokenizer: Option<String>,
    /// Cut texts to so many tokens, special ones included [default: the model's longest]
    #[arg(long, value_name = "N", value_parser = count::<usize>, add = Effect::Updates(&["max_tokens"]))]
    pub max_tokens: Option<usize>,
    /// Put rows together as they come, not by their lengths
    #[arg(long, add = Effect::Updates(&["group_by_length"]))]
    pub no_group_by_length: bool,
}

impl RowArgs {
    /// The rows.
    ///
    /// # Errors
    /// Where it is not said where they come from, or twice, or columns are too few or one comes twice.
    pub fn rows(&self) -> Result<Rows, UsageError> {
        Ok(Rows {
            text: self.text()?,
            columns: self.columns()?,
            group_by_length: !self.no_group_by_length,
        })
    }

    fn text(&self) -> Result<RowText, UsageError> {
        let valid_pairs = self.valid_pairs.clone();
        match (&self.train_pairs, self.dataset.name()) {
            (Some(train_pairs), None) => Ok(RowText::Files(RowFiles {
                train_pairs: train_pairs.clone(),
                valid_pairs,
            })),
            (None, Some(name)) => Ok(RowText::Dataset(RowDataset {
                name: name.clone(),
                split: self.dataset.dataset_split.clone(),
                revision: self.dataset.dataset_revision.clone(),
                valid_pairs,
            })),
            (Some(_), Some(_)) => Err(UsageError(
                "--train-pairs and --dataset-name both name rows to train on: give one of them"
                    .into(),
            )),
            (None, None) => Err(UsageError(
                "there is nothing to train on: name rows with --train-pairs or --dataset-name"
                    .into(),
            )),
        }
    }

    /// The columns that are named, if any are.
    fn columns(&self) -> Result<Option<Vec<String>>, UsageError> {
        let columns = &self.columns;
        let refused = |problem: String| Err(UsageError(format!("--columns: {problem}")));
        match columns.len() {
            0 => return Ok(None),
            1 => {
                return refused(
                    "name at least an anchor and a positive, such as question,answer".into(),
                );
            }
            _ => {}
        }
        for (place, name) in columns.iter().enumerate() {
            if columns[..place].contains(name) {
                return refused(format!("{name} comes twice"));
            }
        }
        Ok(Some(columns.clone()))
    }
}
