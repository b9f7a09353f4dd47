//! Rows of texts as a run trains and evaluates on them: where they come from, and their batches.

use super::RowTask;
use crate::data::hub::{DatasetName, Hub, HubSettings};
use crate::data::pairs::{Given, Part, RowBatch, RowKind, RowLoader, RowSet, RowState, TextCut};
use crate::data::source::{Fields, Passed, Sources};
use crate::data::{DataError, Read, Tokenizer};
use crate::launch::Share;
use crate::train::config::TrainConfig;
use crate::train::feed::{AnyBatch, DataState, HeldOut, Loader};
use crate::train::micro_batch::{Gathers, MicroBatch};
use anyhow::{Context, Result, bail};
use mpnet_graphs::model::gathering::{GIVEN, OWN_ROWS, PLACES, POOLED, WHOLE};
use mpnet_graphs::model::pretraining::{ATTENTION_MASK, INPUT_IDS};
use mpnet_graphs::model::ranking::CANDIDATES;
use mpnet_graphs::model::scored::SCORES;
use mpnet_graphs::model::task::CLASSES;
use mpnet_plan::{Bindings, Symbol};
use mpnet_runtime::engine::{Tensor, TensorData};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The rows that a run is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rows {
    pub text: RowText,
    /// Columns of the texts and of what stands behind them, in this order; the usual ones where absent.
    pub columns: Option<Vec<String>>,
    pub group_by_length: bool,
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
    pub name: DatasetName,
    pub split: String,
    pub revision: String,
    pub valid_pairs: Option<PathBuf>,
}

/// The rows of a run.
pub struct OpenedRows {
    pub train: RowSet,
    pub valid: Option<RowSet>,
}

/// Reads and tokenizes the rows of a run.
pub struct Reader<'a> {
    pub rows: &'a Rows,
    pub config: &'a TrainConfig,
    pub tokenizer: &'a Tokenizer,
    pub cut: TextCut,
    pub kind: RowKind,
    pub task: &'a dyn RowTask,
}

impl Reader<'_> {
    fn read(&self, sources: &dyn Fn(&Fields) -> Result<Sources>) -> Result<RowSet> {
        let sources = match &self.rows.columns {
            Some(columns) => sources(&Fields::apart(columns.clone()))?,
            None => usual(self.task.usual_columns(), sources)?,
        };
        let classes = self.task.classes();
        Ok(RowSet::open(
            &sources,
            self.tokenizer,
            &self.cut,
            self.kind,
            classes,
        )?)
    }

    fn files(&self, path: &Path) -> Result<RowSet> {
        self.read(&|fields| Ok(Sources::local(path, self.config.reading(fields))?))
    }

    /// The rows to train on.
    ///
    /// # Errors
    /// Where some are missing or can't be read.
    pub fn train(&self) -> Result<RowSet> {
        match &self.rows.text {
            RowText::Files(RowFiles { train_pairs, .. }) => {
                (self.files(train_pairs)).context("the rows to train on (--train-pairs)")
            }
            RowText::Dataset(RowDataset {
                name,
                split,
                revision,
                ..
            }) => {
                let hub = Arc::new(Hub::new(HubSettings::from_env()));
                let train = self.read(&|fields| {
                    let reading = self.config.reading(fields);
                    Ok(Sources::dataset(&hub, name, split, revision, reading)?)
                });
                train.with_context(|| format!("the dataset {} (--dataset-name)", name.name))
            }
        }
    }

    /// The rows to validate on, which are as those to `train` on.
    ///
    /// # Errors
    /// As [`train`](Self::train), or where they have other columns.
    pub fn valid(&self, train: &RowSet) -> Result<Option<RowSet>> {
        let (RowText::Files(RowFiles { valid_pairs, .. })
        | RowText::Dataset(RowDataset { valid_pairs, .. })) = &self.rows.text;
        let valid = valid_pairs.as_deref().map(|path| self.files(path));
        let valid = (valid.transpose()).context("the rows to validate on (--valid-pairs)")?;
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
        Ok(valid)
    }
}

/// The rows of the first of the usual columns that there are.
fn usual(among: &[&[&str]], sources: &dyn Fn(&Fields) -> Result<Sources>) -> Result<Sources> {
    let mut last = None;
    for columns in among {
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
        let [rows, length] = [(Symbol::BATCH, self.rows), (Symbol::LENGTH, self.length)];
        match &self.given {
            Given::Part(part) => Bindings::new([rows, length, (WHOLE, part.rows)]),
            Given::Nothing | Given::Candidates(_) | Given::Scores(_) | Given::Classes(_) => {
                Bindings::new([rows, length])
            }
        }
    }

    fn inputs(&self) -> Vec<Tensor> {
        let texts = self.columns * self.rows;
        let tensor = |name: &str, shape: &[usize], data: TensorData| Tensor {
            name: name.to_owned(),
            shape: shape.to_vec(),
            data,
        };
        let indices = |name: &str, shape: &[usize], values: &[i64]| {
            tensor(name, shape, TensorData::I64(values.to_vec()))
        };
        let mut inputs = vec![
            indices(INPUT_IDS, &[texts, self.length], &self.input_ids),
            indices(ATTENTION_MASK, &[texts, self.length], &self.attention_mask),
        ];
        inputs.extend(match &self.given {
            Given::Nothing => Vec::new(),
            Given::Candidates(counts) => {
                vec![indices(CANDIDATES, &[self.rows, texts - self.rows], counts)]
            }
            Given::Part(part) => {
                let all = self.columns * part.rows;
                let nothing = vec![0.0; all * part.width];
                vec![
                    indices(CANDIDATES, &[part.rows, all - part.rows], &part.candidates),
                    indices(PLACES, &[all], &part.places(self.rows, self.columns)),
                    indices(OWN_ROWS, &[part.rows], &part.own_rows(self.rows)),
                    tensor(GIVEN, &[all, part.width], TensorData::F32(nothing)),
                ]
            }
            Given::Scores(scores) => {
                vec![tensor(
                    SCORES,
                    &[self.rows],
                    TensorData::F32(scores.clone()),
                )]
            }
            Given::Classes(places) => vec![indices(CLASSES, &[self.rows], places)],
        });
        inputs
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

    fn gathers(&self) -> Option<Gathers> {
        let Given::Part(Part {
            rows, first, width, ..
        }) = self.given
        else {
            return None;
        };
        let texts = self.columns * self.rows;
        // Column by column, here and there.
        let place = |text: usize| text / self.rows * rows + first + text % self.rows;
        Some(Gathers {
            alone: Box::new(self.alone()),
            output: POOLED,
            input: GIVEN,
            shape: [self.columns * rows, width],
            places: (0..texts).map(place).collect(),
        })
    }
}

impl Loader for RowLoader {
    fn next_update(&mut self, micro_batches: usize) -> Result<Vec<AnyBatch>> {
        let batches = match self.part() {
            Some(part) => self.next_parts(part),
            None => (0..micro_batches).map(|_| self.next_batch()).collect(),
        };
        let any = |batch| Box::new(batch) as AnyBatch;
        Ok(batches.into_iter().map(any).collect())
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
