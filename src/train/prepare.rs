//! What a run needs beside ONNX Runtime: opened and checked before anything is spent.

use super::config::{Pretraining, TaskConfig, TrainConfig};
use super::feed::{DataState, HeldOut};
use super::feeder::Feeder;
use super::flags::Flags;
use super::foreign::{Foreign, open_model, open_start};
use super::measures::Measures;
use super::position::{Best, Position};
use super::resume::{Resumed, is_first_start, resume};
use super::tasks::Finetuning;
use super::tasks::rows::{OpenedRows, RowsHeldOut};
use super::text;
use super::whole::Whole;
use crate::checkpoint::Checkpoint;
use crate::data::pairs::RowLoader;
use crate::data::source::TextSummary;
use crate::data::{LoaderState, Tokenizer, TrainLoader};
use crate::initialize::{initial_head, initial_parameters};
use crate::output::complain;
use anyhow::{Context, Result};
use mpnet_graphs::model::Task;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// A run that can start.
pub struct PreparedRun {
    pub model: ModelConfig,
    /// What the model is trained to do.
    pub task: Arc<dyn Task>,
    /// What of the model is not trained, once its parameters are read.
    pub whole: Whole,
    pub tokenizer: Arc<Tokenizer>,
    /// Batches to train on; they are being made already.
    pub feeder: Feeder,
    /// What of the text was found, taken and left out, for each part.
    pub text: Vec<TextSummary>,
    /// What is evaluated while it trains, if anything is.
    pub valid: Option<Box<dyn HeldOut>>,
    /// What is evaluated at the end, if anything is.
    pub test: Option<Box<dyn HeldOut>>,
    /// Rows of floats that the micro-batches of an update give each other, and floats of a row, where they do.
    pub gathers: Option<[usize; 2]>,
    /// What else is measured whenever it is evaluated.
    pub measures: Option<Measures>,
    /// Where the run stands.
    pub position: Position,
    /// Its step, where that is already a checkpoint of this run.
    pub saved: Option<u64>,
    pub origin: Origin,
}

/// Where the parameters come from.
pub enum Origin {
    /// They are drawn.
    Fresh,
    /// A model of another program, or another run's.
    Model(Box<Foreign>),
    /// The checkpoint that is resumed.
    Checkpoint(Box<Checkpoint>),
}

/// Opens and checks what `config` names. A resumed run keeps the micro-batches of its updates, also on another number
/// of ranks.
///
/// # Errors
/// Where something is missing or does not fit the rest.
pub fn prepare(config: &mut TrainConfig, flags: &Flags) -> Result<PreparedRun> {
    match config.task.clone() {
        TaskConfig::Pretraining(task) => pretraining(config, &task, flags),
        TaskConfig::Finetuning(task) => finetuning(config, task, flags),
    }
}

fn pretraining(config: &mut TrainConfig, task: &Pretraining, flags: &Flags) -> Result<PreparedRun> {
    let (tokenizer, foreign) = open_start(config, &task.architecture)?;
    let tokenizer = Arc::new(match task.batching.special_in_text {
        true => tokenizer,
        false => tokenizer.with_special_as_text(),
    });
    let mut model = match &foreign {
        Some(foreign) => foreign.model.clone(),
        None => task.architecture.model(&tokenizer.vocabulary()),
    };
    model.objective = task.masking.objective;
    model.validate().context("the model's settings")?;
    tracing::debug!("opening the text");
    let text = text::open(config, task, &tokenizer)?;
    let begun: Begun<LoaderState> = begin(config, flags, &model, &tokenizer, foreign)?;
    let loader = TrainLoader::new(text.loader, Arc::clone(&tokenizer), begun.data.clone())?;
    let start = begun.data.unwrap_or_else(|| LoaderState::new(config.seed));
    Ok(PreparedRun {
        text: loader.summary().to_vec(),
        feeder: Feeder::new(loader, config.update_freq, config.launch.share())?,
        task: Arc::new(model.clone()),
        whole: Whole::default(),
        model,
        tokenizer,
        valid: Some(Box::new(text.valid)),
        test: Some(Box::new(text.test)),
        gathers: None,
        measures: None,
        position: begun.standing.position(Arc::new(start)),
        saved: begun.saved,
        origin: begun.origin,
    })
}

fn finetuning(
    config: &mut TrainConfig,
    mut task: Finetuning,
    flags: &Flags,
) -> Result<PreparedRun> {
    let (tokenizer, start) = open_model(config, |model| task.model(model))?;
    let tokenizer = Arc::new(tokenizer.with_special_as_text());
    let model = start.model.clone();
    model.validate().context("the model's settings")?;
    tracing::debug!("opening the rows");
    let opened = task.open(config, &tokenizer, start.source(), &model)?;
    let (by_length, part) = (task.rows.group_by_length, task.task.get().part());
    config.task = TaskConfig::Finetuning(task);
    let begun = begin(config, flags, &model, &tokenizer, Some(start))?;
    let OpenedRows { train, valid } = opened.rows;
    let batch_size = config.batch_size;
    let loader = RowLoader::new(train, batch_size, by_length, config.seed, begun.data)?;
    let loader = loader.in_parts(part);
    let gathers = loader.gathers();
    let at: Arc<dyn DataState> = Arc::new(loader.state().clone());
    let batch_size = config.rows_at_once();
    let valid = valid.map(|rows| RowsHeldOut { rows, batch_size });
    Ok(PreparedRun {
        text: vec![loader.summary().clone()],
        feeder: Feeder::new(loader, config.update_freq, config.launch.share())?,
        task: opened.graph,
        whole: Whole::default(),
        model,
        tokenizer,
        valid: valid.map(|valid| Box::new(valid) as Box<dyn HeldOut>),
        test: None,
        gathers,
        measures: opened.measures,
        position: begun.standing.position(at),
        saved: begun.saved,
        origin: begun.origin,
    })
}

/// Where a run begins or goes on.
struct Begun<S> {
    origin: Origin,
    standing: Standing,
    saved: Option<u64>,
    /// Where its data stands, if it goes on.
    data: Option<S>,
}

/// [`Position`] without its data.
#[derive(Default)]
struct Standing {
    step: u64,
    best: Option<Best>,
    validated: Option<u64>,
}

impl Standing {
    fn position(self, data: Arc<dyn DataState>) -> Position {
        Position {
            step: self.step,
            best: self.best,
            validated: self.validated,
            data,
        }
    }
}

/// From the checkpoint to resume, if there is one, else from `foreign`, else anew.
fn begin<S: DeserializeOwned>(
    config: &mut TrainConfig,
    flags: &Flags,
    model: &ModelConfig,
    tokenizer: &Tokenizer,
    foreign: Option<Foreign>,
) -> Result<Begun<S>> {
    let from = config.resume.clone();
    let from = from.filter(|path| !is_first_start(path, config));
    let resumed = from
        .map(|path| resume(&path, config, flags, model, tokenizer))
        .transpose()
        .context("resuming")?;
    let Some(found) = resumed else {
        let origin = foreign.map_or(Origin::Fresh, |foreign| Origin::Model(Box::new(foreign)));
        return Ok(Begun {
            origin,
            standing: Standing::default(),
            saved: None,
            data: None,
        });
    };
    let Resumed {
        checkpoint,
        folder,
        best,
        saved,
    } = found;
    let data = serde_json::from_value(checkpoint.data.clone())
        .with_context(|| format!("reading the data position in {}", folder.display()))
        .context("resuming")?;
    Ok(Begun {
        standing: Standing {
            step: checkpoint.step,
            best,
            validated: checkpoint.validated.filter(|_| best.is_some()),
        },
        saved,
        data: Some(data),
        origin: Origin::Checkpoint(Box::new(checkpoint)),
    })
}

impl Origin {
    /// The parameters of `model` and of what `task` has beside it and, where a checkpoint has it, the optimizer's state.
    /// What the user should know of a model's is printed.
    ///
    /// # Errors
    /// Where the model's files cannot be read.
    pub fn parameters(
        self,
        model: &ModelConfig,
        task: &dyn Task,
        seed: u64,
    ) -> Result<(Vec<NamedArray>, Option<OptimizerState>)> {
        let with_head = |mut parameters: Vec<NamedArray>| {
            parameters.extend(initial_head(model, task, seed));
            (parameters, None)
        };
        match self {
            Origin::Fresh => Ok(with_head(initial_parameters(model, seed))),
            Origin::Model(foreign) => {
                let (parameters, notes) = foreign.parameters(seed)?;
                for note in notes {
                    complain(&format!("note: {note}"));
                }
                Ok(with_head(parameters))
            }
            Origin::Checkpoint(checkpoint) => Ok((checkpoint.parameters, checkpoint.optimizer)),
        }
    }
}
