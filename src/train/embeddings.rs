//! Sentence embeddings as a run's task: settings, rows, batches, and the model that comes out.

use super::config::TrainConfig;
use super::feed::{AnyBatch, DataState, HeldOut, Loader};
use super::measures::MeasureFiles;
use super::micro_batch::MicroBatch;
use crate::convert::sentence_transformers::SentenceModel;
use crate::data::hub::{Hub, HubSettings};
use crate::data::pairs::{RowBatch, RowLoader, RowSet, RowState, TextCut};
use crate::data::source::{Fields, Passed, Sources};
use crate::data::{DataError, Read, Tokenizer};
use crate::launch::Share;
use anyhow::{Context, Result, bail};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::pooling::Pooling;
use mpnet_graphs::model::pretraining::{ATTENTION_MASK, INPUT_IDS};
use mpnet_graphs::model::ranking::{CANDIDATES, Ranking};
use mpnet_plan::{Bindings, Symbol};
use mpnet_runtime::engine::{Tensor, TensorData};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Columns that are read where none are named, the first of these that a file has.
const USUAL_COLUMNS: [&[&str]; 2] = [&["anchor", "positive", "negative"], &["anchor", "positive"]];

/// Settings of a run that trains sentence embeddings.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Embeddings {
    pub task: TaskName,
    pub text: RowText,
    /// Columns of anchor, positive and negatives, in this order; the usual ones where absent.
    pub columns: Option<Vec<String>>,
    /// What cosines are multiplied by.
    pub scale: f32,
    /// Whether positives are to find their anchors, too.
    pub symmetric: bool,
    /// Widths of embeddings that are trained, the first so many of their columns; the whole where there are none.
    pub matryoshka: Vec<usize>,
    /// How hidden states become an embedding; as the model does it where absent.
    pub pooling: Option<PoolingChoice>,
    /// Whether the model that comes out scales embeddings to length 1, also where the one before did not.
    pub normalize: bool,
    pub group_by_length: bool,
    /// What embeddings are measured by whenever the run is validated.
    pub measures: MeasureFiles,
    /// The model's own where absent.
    pub dropout: Option<f32>,
    pub attention_dropout: Option<f32>,
    pub activation_dropout: Option<f32>,
}

/// How the task is called in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum TaskName {
    /// Sentence embeddings: each anchor's positive is to be nearer than all other texts of a batch
    Embeddings,
}

/// How hidden states become an embedding, as it can be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum PoolingChoice {
    /// The mean over the tokens
    Mean,
    /// The first token's
    Cls,
}

/// Where rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RowText {
    Files(RowFiles),
    Dataset(RowDataset),
}

/// Files, folders or patterns of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowFiles {
    pub train_pairs: PathBuf,
    pub valid_pairs: Option<PathBuf>,
}

/// A dataset on the HuggingFace Hub, validated on files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowDataset {
    pub name: crate::data::hub::DatasetName,
    pub split: String,
    pub revision: String,
    pub valid_pairs: Option<PathBuf>,
}

/// The rows of a run.
pub struct OpenedRows {
    pub train: RowSet,
    pub valid: Option<RowSet>,
}

impl Embeddings {
    /// The task for a `model` whose embeddings are `sentence`'s, on rows of so many texts.
    pub fn task(&self, model: &ModelConfig, sentence: &SentenceModel, columns: usize) -> Ranking {
        Ranking {
            model: model.clone(),
            pooling: sentence.pooling.clone(),
            columns,
            scale: self.scale,
            symmetric: self.symmetric,
            matryoshka: self.matryoshka.clone(),
        }
    }

    /// What stands on the encoder while it is trained and in the model that comes out: `own`, which the model has, with
    /// the changes that are asked for.
    ///
    /// # Errors
    /// Where it has a layer of its own, which is not trained.
    pub fn sentence(&self, own: SentenceModel, max_tokens: usize) -> Result<SentenceModel> {
        let mut sentence = own;
        if sentence.has_dense() {
            bail!(
                "its embeddings go through a module Dense, which is not trained here: take a model of Transformer, \
                 Pooling and Normalize alone"
            );
        }
        match self.pooling {
            Some(PoolingChoice::Mean) => sentence.pooling = vec![Pooling::Mean],
            Some(PoolingChoice::Cls) => sentence.pooling = vec![Pooling::Cls],
            None => {}
        }
        if let Some(other) = (sentence.pooling.iter())
            .find(|pooling| !matches!(pooling, Pooling::Mean | Pooling::Cls))
        {
            bail!("its pooling {other:?} is not trained: give --pooling mean or --pooling cls");
        }
        sentence.max_seq_length = max_tokens;
        Ok(match self.normalize {
            true => sentence.normalized(),
            false => sentence,
        })
    }

    /// `model` with the dropout that is asked for.
    pub fn model(&self, model: &ModelConfig) -> ModelConfig {
        ModelConfig {
            dropout: self.dropout.unwrap_or(model.dropout),
            attention_dropout: self.attention_dropout.unwrap_or(model.attention_dropout),
            activation_dropout: self.activation_dropout.unwrap_or(model.activation_dropout),
            ..model.clone()
        }
    }

    /// What is done to a text for the model `sentence`.
    pub fn cut(&self, config: &TrainConfig, sentence: &SentenceModel) -> TextCut {
        TextCut {
            max_tokens: config.max_tokens,
            lower_case: sentence.do_lower_case,
        }
    }

    /// Reads and tokenizes the rows of `config`.
    ///
    /// # Errors
    /// Where some are missing or can't be read, or those kept aside have other columns.
    pub fn open(
        &self,
        config: &TrainConfig,
        tokenizer: &Tokenizer,
        cut: TextCut,
    ) -> Result<OpenedRows> {
        let read = |sources: &dyn Fn(&Fields) -> Result<Sources>| -> Result<RowSet> {
            let sources = match &self.columns {
                Some(columns) => sources(&Fields::apart(columns.clone()))?,
                None => usual(sources)?,
            };
            Ok(RowSet::open(&sources, tokenizer, &cut)?)
        };
        let files = |path: &Path| read(&|fields| Ok(Sources::local(path, config.reading(fields))?));
        let (train, valid_pairs) = match &self.text {
            RowText::Files(RowFiles {
                train_pairs,
                valid_pairs,
            }) => {
                let train = files(train_pairs).context("the rows to train on (--train-pairs)")?;
                (train, valid_pairs)
            }
            RowText::Dataset(RowDataset {
                name,
                split,
                revision,
                valid_pairs,
            }) => {
                let hub = Arc::new(Hub::new(HubSettings::from_env()));
                let train = read(&|fields| {
                    let reading = config.reading(fields);
                    Ok(Sources::dataset(&hub, name, split, revision, reading)?)
                });
                let train =
                    train.with_context(|| format!("the dataset {} (--dataset-name)", name.name))?;
                (train, valid_pairs)
            }
        };
        let valid = valid_pairs.as_deref().map(files).transpose();
        let valid = valid.context("the rows to validate on (--valid-pairs)")?;
        if let Some(valid) = &valid
            && valid.columns() != train.columns()
        {
            bail!(
                "the rows to validate on (--valid-pairs) have {} texts each, those to train on {}: name the same \
                 columns of both with --columns",
                valid.columns(),
                train.columns()
            );
        }
        Ok(OpenedRows { train, valid })
    }
}

/// The rows of the first of the usual columns that there are.
fn usual(sources: &dyn Fn(&Fields) -> Result<Sources>) -> Result<Sources> {
    let mut last = None;
    for columns in USUAL_COLUMNS {
        let columns = columns.iter().map(|name| (*name).to_owned()).collect();
        let found = sources(&Fields::apart(columns))?;
        let first = found.texts_quietly().next().transpose();
        match first {
            Ok(Some(_)) => return Ok(found),
            Ok(None) => {
                last = Some(DataError::NoText {
                    name: found.name().to_owned(),
                    shortest: 0,
                })
            }
            // The last one names the columns that every file has to have.
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error.into()),
        None => bail!("there are no usual columns"),
    }
}

impl MicroBatch for RowBatch {
    fn sizes(&self) -> Bindings {
        Bindings::new([(Symbol::BATCH, self.rows), (Symbol::LENGTH, self.length)])
    }

    fn inputs(&self) -> Vec<Tensor> {
        let texts = self.columns * self.rows;
        let indices = |name: &str, shape: [usize; 2], values: &[i64]| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data: TensorData::I64(values.to_vec()),
        };
        vec![
            indices(INPUT_IDS, [texts, self.length], &self.input_ids),
            indices(ATTENTION_MASK, [texts, self.length], &self.attention_mask),
            indices(CANDIDATES, [self.rows, texts - self.rows], &self.candidates),
        ]
    }

    fn items(&self) -> usize {
        self.rows
    }

    fn tokens(&self) -> usize {
        self.tokens
    }

    fn own_shares(&self) -> usize {
        0
    }
}

impl Loader for RowLoader {
    fn next_update(&mut self, micro_batches: usize) -> Result<Vec<AnyBatch>> {
        let batches = (0..micro_batches).map(|_| Box::new(self.next_batch()) as AnyBatch);
        Ok(batches.collect())
    }

    fn state(&self) -> Arc<dyn DataState> {
        Arc::new(RowLoader::state(self).clone())
    }
}

impl DataState for RowState {
    fn saved(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }

    fn read(&self) -> Vec<Read> {
        Vec::new()
    }

    fn passed(&self) -> Passed {
        self.passed
    }
}

/// Rows in batches of a size, for evaluation.
pub struct RowsHeldOut {
    pub rows: RowSet,
    pub batch_size: usize,
}

impl HeldOut for RowsHeldOut {
    fn batch_count(&self) -> usize {
        self.rows.batch_count(self.batch_size)
    }

    fn batches<'s>(
        &'s self,
        share: Share,
    ) -> Box<dyn Iterator<Item = (usize, Result<AnyBatch>)> + 's> {
        let batches = self.rows.batches(self.batch_size, share);
        Box::new(batches.map(|(index, batch)| (index, Ok(Box::new(batch) as AnyBatch))))
    }
}
