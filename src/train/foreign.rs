//! A run that starts from the weights of a model of another program.

use super::config::TrainConfig;
use super::initialize::initial_parameters;
use crate::convert::source::SourceOptions;
use crate::convert::{Source, resize_positions};
use crate::data::Tokenizer;
use anyhow::Result;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;
use std::path::Path;

/// An opened model, and what it becomes in this run.
pub struct Foreign {
    source: Source,
    /// Its sizes, with the run's positions, dropout and tokenizer.
    pub model: ModelConfig,
}

impl Foreign {
    /// Opens the model at `path` for the run `config`, whose tokenizer it has to fit.
    ///
    /// # Errors
    /// Where there is none, it is damaged, or its vocabulary smaller than the tokenizer's.
    pub fn open(path: &Path, config: &TrainConfig, tokenizer: &Tokenizer) -> Result<Foreign> {
        let options = SourceOptions {
            tokenizer: tokenizer.path().parent().map(Path::to_owned),
            no_optimizer: true,
        };
        let source = Source::open(path, &options)?;
        let asked = &config.architecture;
        let model = ModelConfig {
            max_positions: asked.max_positions,
            dropout: asked.dropout,
            attention_dropout: asked.attention_dropout,
            activation_dropout: asked.activation_dropout,
            ..source.model.clone()
        };
        Ok(Foreign { source, model })
    }

    /// Its parameters, and what the user should know of them. Positions that it lacks are drawn by
    /// `seed`.
    ///
    /// # Errors
    /// Where its files cannot be read.
    pub fn parameters(self, seed: u64) -> Result<(Vec<NamedArray>, Vec<String>)> {
        let Foreign { source, model } = self;
        let mut parameters = source.read_all()?;
        let mut notes = source.notes;
        if model.max_positions != source.model.max_positions {
            let fresh = initial_parameters(&model, seed);
            notes.extend(resize_positions(&mut parameters, &fresh, &model));
        }
        Ok((parameters, notes))
    }
}
