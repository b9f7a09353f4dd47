//! What a run starts from: its tokenizer, and the weights of a model of another program.

use super::config::{Architecture, TrainConfig};
use crate::checkpoint::{self, TOKENIZER_FOLDER};
use crate::convert::source::SourceOptions;
use crate::convert::{Source, resize_positions};
use crate::data::Tokenizer;
use crate::data::tokenizer::TOKENIZER_FILE;
use crate::initialize::initial_parameters;
use anyhow::{Context, Result, bail};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;
use std::path::{Path, PathBuf};

/// The tokenizer of a run that neither names one nor goes on from a model that has one.
pub const DEFAULT_TOKENIZER: &str = "microsoft/mpnet-base";

/// An opened model, and what it becomes in this run.
pub struct Foreign {
    source: Source,
    /// Its sizes, with the run's positions, dropout and tokenizer.
    pub model: ModelConfig,
}

/// The tokenizer of the run `config` and, where it starts from another model, that model.
///
/// # Errors
/// Where either cannot be read, or the tokenizer asked for is not the model's and that is not accepted.
pub fn open_start(
    config: &TrainConfig,
    asked: &Architecture,
) -> Result<(Tokenizer, Option<Foreign>)> {
    if config.start_from.is_some() {
        let (tokenizer, foreign) = open_model(config, |model| ModelConfig {
            max_positions: asked.max_positions,
            dropout: asked.dropout,
            attention_dropout: asked.attention_dropout,
            activation_dropout: asked.activation_dropout,
            ..model.clone()
        })
        .context("opening the model to start from (--hf-model-path)")?;
        return Ok((tokenizer, Some(foreign)));
    }
    let given = given_tokenizer(config)?;
    let tokenizer = match (given, resumed_tokenizer(config)) {
        (Some(given), _) => given,
        (None, Some(definition)) => Tokenizer::load(&definition.to_string_lossy())?,
        (None, None) => Tokenizer::load(DEFAULT_TOKENIZER)?,
    };
    Ok((tokenizer, None))
}

/// The tokenizer of the run `config` and the model that it starts from, which there `becomes` another.
///
/// # Errors
/// Where it names none, or as [`open_start`].
pub fn open_model(
    config: &TrainConfig,
    becomes: impl FnOnce(&ModelConfig) -> ModelConfig,
) -> Result<(Tokenizer, Foreign)> {
    let path = config.start_from.as_ref();
    let path = path.context("there is no model to start from")?;
    Foreign::open(path, config, given_tokenizer(config)?, becomes)
}

/// The tokenizer that is asked for.
fn given_tokenizer(config: &TrainConfig) -> Result<Option<Tokenizer>> {
    let given = config.tokenizer.as_deref().map(Tokenizer::load);
    Ok(given.transpose()?)
}

/// The tokenizer in the newest checkpoint that the run may resume, if it is to and there is one.
fn resumed_tokenizer(config: &TrainConfig) -> Option<PathBuf> {
    let path = config.resume.as_ref()?;
    let path = if path.as_os_str().is_empty() {
        &config.checkpoint_dir
    } else {
        path
    };
    // What is wrong with the checkpoints is said when they are read.
    let folders = checkpoint::candidates(path).unwrap_or_default().into_iter();
    folders
        .map(|folder| folder.join(TOKENIZER_FOLDER).join(TOKENIZER_FILE))
        .find(|definition| definition.is_file())
}

impl Foreign {
    /// Opens the model at `path` for the run `config`, with the tokenizer `given` or its own.
    ///
    /// # Errors
    /// Where there is none, it is damaged, has no tokenizer and none is given, or the one given is not
    /// its own and that is not accepted, or has more entries than it.
    fn open(
        path: &Path,
        config: &TrainConfig,
        given: Option<Tokenizer>,
        becomes: impl FnOnce(&ModelConfig) -> ModelConfig,
    ) -> Result<(Tokenizer, Foreign)> {
        let options = SourceOptions {
            tokenizer: given.as_ref().map(|t| t.path().to_owned()),
            only_own_tokenizer: !config.operation.accept_changes,
            no_optimizer: true,
        };
        let source = Source::open(path, &options)?;
        let tokenizer = match (given, &source.tokenizer) {
            (Some(given), _) => given,
            (None, Some(own)) => Tokenizer::load(&own.to_string_lossy())?,
            (None, None) => bail!(
                "{} has no tokenizer.json: give the tokenizer that it was trained with as \
                 --tokenizer-name ({DEFAULT_TOKENIZER} is that of microsoft's models)",
                source.path.display()
            ),
        };
        let model = becomes(&source.model);
        Ok((tokenizer, Foreign { source, model }))
    }

    /// The model as it was opened.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Its parameters, and what the user should know of them. Positions that it lacks are drawn by
    /// `seed`.
    ///
    /// # Errors
    /// Where its files cannot be read.
    pub fn parameters(self, seed: u64) -> Result<(Vec<NamedArray>, Vec<String>)> {
        let Foreign { source, model } = self;
        let mut parameters = source.read_all()?;
        let mut notes = source.notes_of_checkpoint();
        if model.max_positions != source.model.max_positions {
            let fresh = initial_parameters(&model, seed);
            notes.extend(resize_positions(&mut parameters, &fresh, &model));
        }
        Ok((parameters, notes))
    }
}
