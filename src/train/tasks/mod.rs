//! The tasks of `mpnet finetune`: what they share, and a file for each.

pub mod classification;
pub mod embeddings;
pub mod rows;

use super::config::TrainConfig;
use super::log::record::LossUnit;
use super::measures::Measures;
use super::position::BestBy;
use crate::convert::source::Source;
use crate::convert::{ConvertError, OutputHead, unrepresentable};
use crate::data::Tokenizer;
use crate::data::pairs::{RowKind, RowSet, TextCut};
use anyhow::{Context, Result};
use classification::Classification;
use embeddings::Embeddings;
use mpnet_graphs::model::Task;
use mpnet_graphs::model::config::ModelConfig;
use rows::{OpenedRows, Reader, Rows};
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;

/// Settings of a run that trains a model for a task.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finetuning {
    #[serde(flatten)]
    pub rows: Rows,
    #[serde(flatten)]
    pub dropout: Dropout,
    /// By what the best checkpoint is chosen.
    pub best_by: BestBy,
    #[serde(flatten)]
    pub task: AnyTask,
}

/// Dropout while a model is trained on; the model's own where absent.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize)]
pub struct Dropout {
    pub dropout: Option<f32>,
    pub attention_dropout: Option<f32>,
    pub activation_dropout: Option<f32>,
}

/// What a model is trained for, with the settings of that.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "task", rename_all = "kebab-case")]
pub enum AnyTask {
    Embeddings(Embeddings),
    Classification(Classification),
}

/// How a task is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskName {
    /// Sentence embeddings: texts that belong together are to be near each other
    Embeddings,
    /// Classes of texts, or of pairs of texts
    Classification,
}

impl TaskName {
    /// Whether its models give embeddings, which are measured as such.
    pub fn embeds(self) -> bool {
        match self {
            TaskName::Embeddings => true,
            TaskName::Classification => false,
        }
    }
}

/// What is asked of a task on rows of texts.
pub trait RowTask {
    /// What its rows are made of, for the model `start`.
    ///
    /// # Errors
    /// Where the model is none that the task trains.
    fn kind(&self, start: &Source) -> Result<RowKind>;

    /// Rows that the engine takes at once, where they are a part of a batch whose embeddings are gathered.
    fn part(&self) -> Option<usize> {
        None
    }

    /// Columns that are read where none are named, the first of these that a file has.
    fn usual_columns(&self) -> &'static [&'static [&'static str]];

    /// What its losses are told in.
    fn unit(&self) -> LossUnit;

    /// What is done to a text for the model `start`.
    ///
    /// # Errors
    /// Where the model is none that the task trains.
    fn cut(&self, start: &Source, max_tokens: usize) -> Result<TextCut>;

    /// Takes from the rows to train on what checkpoints are to keep of them.
    fn learn(&mut self, rows: &RowSet);

    /// What it has learnt before and other rows have to keep to: the names of classes.
    fn classes(&self) -> Option<&[String]>;

    /// What `model`, made of `start`, is trained on with rows of so many texts.
    ///
    /// # Errors
    /// Where the model or the rows are none that the task trains.
    fn graph(&self, model: &ModelConfig, start: &Source, columns: usize) -> Result<Arc<dyn Task>>;

    /// What else is measured whenever the run is validated, of texts that are `cut`; they are embedded as rows and
    /// columns of this `shape` and kind.
    ///
    /// # Errors
    /// Where a file is missing or is not what it should be.
    fn measures(
        &self,
        tokenizer: &Tokenizer,
        cut: TextCut,
        shape: [usize; 2],
        kind: RowKind,
    ) -> Result<Option<Measures>>;

    /// What stands on the encoder in the folder that is written, of the model `start` that the run began with; `run` are
    /// its settings as a checkpoint has them, null before it begins.
    ///
    /// # Errors
    /// Where the model is none that the task trains.
    fn head(&self, start: &Source, run: &Value, max_tokens: usize) -> Result<OutputHead>;
}

impl AnyTask {
    /// What is asked of it.
    pub fn get(&self) -> &dyn RowTask {
        match self {
            AnyTask::Embeddings(task) => task,
            AnyTask::Classification(task) => task,
        }
    }

    fn get_mut(&mut self) -> &mut dyn RowTask {
        match self {
            AnyTask::Embeddings(task) => task,
            AnyTask::Classification(task) => task,
        }
    }
}

/// A task whose rows are there.
pub struct OpenedTask {
    pub graph: Arc<dyn Task>,
    pub rows: OpenedRows,
    pub measures: Option<Measures>,
}

impl Finetuning {
    /// `model` with the dropout that is asked for.
    pub fn model(&self, model: &ModelConfig) -> ModelConfig {
        let Dropout {
            dropout,
            attention_dropout,
            activation_dropout,
        } = self.dropout;
        ModelConfig {
            dropout: dropout.unwrap_or(model.dropout),
            attention_dropout: attention_dropout.unwrap_or(model.attention_dropout),
            activation_dropout: activation_dropout.unwrap_or(model.activation_dropout),
            ..model.clone()
        }
    }

    /// Reads and tokenizes the rows of `config` for `model`, made of `start`, and what it is measured by; `self` then knows
    /// what there is to know of them.
    ///
    /// # Errors
    /// Where some are missing, can't be read, or do not fit the task.
    pub fn open(
        &mut self,
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        start: &Source,
        model: &ModelConfig,
    ) -> Result<OpenedTask> {
        let cut = self.task.get().cut(start, config.max_tokens)?;
        let kind = self.task.get().kind(start)?;
        let train = self.reader(config, tokenizer, cut, kind).train()?;
        self.task.get_mut().learn(&train);
        let valid = self.reader(config, tokenizer, cut, kind).valid(&train)?;
        let task = self.task.get();
        let columns = train.columns();
        let measures = task.measures(tokenizer, cut, [config.rows_at_once(), columns], kind);
        Ok(OpenedTask {
            graph: task.graph(model, start, columns)?,
            rows: OpenedRows { train, valid },
            measures: measures.context("what embeddings are measured by")?,
        })
    }

    fn reader<'a>(
        &'a self,
        config: &'a TrainConfig,
        tokenizer: &'a Tokenizer,
        cut: TextCut,
        kind: RowKind,
    ) -> Reader<'a> {
        Reader {
            rows: &self.rows,
            config,
            tokenizer,
            cut,
            kind,
            task: self.task.get(),
        }
    }

    /// What stands on the encoder of the model that comes out of a run that begins with `start`; `run` are its settings as
    /// a checkpoint has them, null before it begins.
    ///
    /// # Errors
    /// Where the model could not be written for other programs.
    pub fn comes_out(&self, start: &Source, run: &Value, max_tokens: usize) -> Result<OutputHead> {
        let reasons = unrepresentable(&start.model);
        if !reasons.is_empty() {
            return Err(ConvertError::Unrepresentable { reasons })
                .context("the model could not be written for other programs");
        }
        let head = self.task.get().head(start, run, max_tokens);
        head.with_context(|| format!("the model {}", start.path.display()))
    }
}
