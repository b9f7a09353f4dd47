//! What a run needs beside ONNX Runtime: opened and checked before anything is spent.

use super::config::TrainConfig;
use super::feeder::Feeder;
use super::flags::Flags;
use super::foreign::{Foreign, open_start};
use super::position::Position;
use super::resume::{Resumed, is_first_start, resume};
use super::text;
use crate::checkpoint::Checkpoint;
use crate::data::source::TextSummary;
use crate::data::{EvaluationSet, LoaderState, Tokenizer, TrainLoader};
use crate::initialize::initial_parameters;
use crate::output::complain;
use anyhow::{Context, Result};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use std::sync::Arc;

/// A run that can start.
pub struct PreparedRun {
    pub model: ModelConfig,
    pub tokenizer: Arc<Tokenizer>,
    /// Batches to train on; they are being made already.
    pub feeder: Feeder,
    /// What of the text was found, taken and left out, for each part.
    pub text: Vec<TextSummary>,
    pub valid: EvaluationSet,
    pub test: EvaluationSet,
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
    let (tokenizer, foreign) = open_start(config)?;
    let tokenizer = Arc::new(match config.batching.special_in_text {
        true => tokenizer,
        false => tokenizer.with_special_as_text(),
    });
    let mut model = match &foreign {
        Some(foreign) => foreign.model.clone(),
        None => config.architecture.model(&tokenizer.vocabulary()),
    };
    model.objective = config.masking.objective;
    model.validate().context("the model's settings")?;
    tracing::debug!("opening the text");
    let text = text::open(config, &tokenizer)?;
    let from = config.resume.clone();
    let from = from.filter(|path| !is_first_start(path, config));
    let resumed = from
        .map(|path| resume(&path, config, flags, &model, &tokenizer))
        .transpose()
        .context("resuming")?;
    let (origin, position, saved) = match (resumed, foreign) {
        (Some(found), _) => {
            let Resumed {
                checkpoint,
                position,
                saved,
            } = found;
            (Origin::Checkpoint(Box::new(checkpoint)), position, saved)
        }
        (None, Some(foreign)) => {
            let start = Position::start(LoaderState::new(config.seed));
            (Origin::Model(Box::new(foreign)), start, None)
        }
        (None, None) => {
            let start = Position::start(LoaderState::new(config.seed));
            (Origin::Fresh, start, None)
        }
    };
    let state = matches!(origin, Origin::Checkpoint(_)).then(|| position.data.clone());
    let loader = TrainLoader::new(text.loader, Arc::clone(&tokenizer), state)?;
    Ok(PreparedRun {
        text: loader.summary().to_vec(),
        feeder: Feeder::new(loader, config.update_freq, config.launch.share())?,
        model,
        tokenizer,
        valid: text.valid,
        test: text.test,
        position,
        saved,
        origin,
    })
}

impl Origin {
    /// The parameters of `model` and, where a checkpoint has it, the optimizer's state. What the user
    /// should know of a model's is printed.
    ///
    /// # Errors
    /// Where the model's files cannot be read.
    pub fn parameters(
        self,
        model: &ModelConfig,
        seed: u64,
    ) -> Result<(Vec<NamedArray>, Option<OptimizerState>)> {
        match self {
            Origin::Fresh => Ok((initial_parameters(model, seed), None)),
            Origin::Model(foreign) => {
                let (parameters, notes) = foreign.parameters(seed)?;
                for note in notes {
                    complain(&format!("note: {note}"));
                }
                Ok((parameters, None))
            }
            Origin::Checkpoint(checkpoint) => Ok((checkpoint.parameters, checkpoint.optimizer)),
        }
    }
}
