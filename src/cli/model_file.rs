//! The model that a command is about: a preset, a configuration file, a checkpoint or a golden case.

use super::presets::Preset;
use crate::checkpoint::{self, Pointer};
use crate::data::tokenizer::Vocabulary;
use crate::initialize::initial_parameters;
use anyhow::{Context, Result};
use clap::Args;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::NamedArray;
use std::path::PathBuf;

/// microsoft/mpnet-base's vocabulary.
pub const MPNET_BASE: Vocabulary = Vocabulary {
    size: 30_527,
    pad: 1,
    bos: 0,
    eos: 2,
    unk: 3,
    mask: 30_526,
};

/// Which model.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ModelArgs {
    /// Take this named architecture, with microsoft/mpnet-base's vocabulary
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// Take the model of this checkpoint
    #[arg(long, value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,
    /// Take the model in this JSON file: its configuration, alone or as its field 'model'
    #[arg(long, value_name = "FILE")]
    pub model: Option<PathBuf>,
}

impl ModelArgs {
    /// The model's configuration.
    ///
    /// # Errors
    /// Where a file cannot be read or describes no valid model.
    pub fn config(&self) -> Result<ModelConfig> {
        let config = if let Some(path) = &self.checkpoint {
            checkpoint::read_state(&checkpoint::resolve(path, Pointer::Latest)?)?.model
        } else if let Some(path) = &self.model {
            let context = || format!("reading the model in {}", path.display());
            let text = std::fs::read(path).with_context(context)?;
            let mut json: serde_json::Value =
                serde_json::from_slice(&text).with_context(context)?;
            if let Some(model) = json.get_mut("model") {
                json = model.take();
            }
            serde_json::from_value(json).with_context(context)?
        } else {
            preset_model(self.preset.unwrap_or(Preset::Base))
        };
        config.validate()?;
        Ok(config)
    }
}

impl ModelArgs {
    /// The parameters of the checkpoint, or fresh ones for `config`, its model.
    ///
    /// # Errors
    /// Where the checkpoint cannot be read.
    pub fn parameters(&self, config: &ModelConfig, seed: u64) -> Result<Vec<NamedArray>> {
        match &self.checkpoint {
            Some(path) => {
                let path = checkpoint::resolve(path, Pointer::Latest)?;
                Ok(checkpoint::load_model(&path)?.parameters)
            }
            None => Ok(initial_parameters(config, seed)),
        }
    }
}

/// The model of a preset with microsoft/mpnet-base's vocabulary.
pub fn preset_model(preset: Preset) -> ModelConfig {
    preset.architecture().model(&MPNET_BASE)
}
