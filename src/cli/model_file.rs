//! The model that a command is about: a preset, a configuration file, a checkpoint or a golden case.

use super::presets::Preset;
use crate::checkpoint::{self, Pointer};
use crate::train::initialize::initial_parameters;
use anyhow::{Context, Result};
use clap::Args;
use mpnet_graphs::model::Objective;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_runtime::engine::NamedArray;
use std::path::PathBuf;

/// Entries of microsoft/mpnet-base's vocabulary.
const MPNET_BASE_VOCABULARY: usize = 30_527;

/// Which model.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub struct ModelArgs {
    /// A named architecture, with microsoft/mpnet-base's vocabulary
    #[arg(long, value_enum)]
    pub preset: Option<Preset>,
    /// The model of a checkpoint
    #[arg(long, value_name = "PATH")]
    pub checkpoint: Option<PathBuf>,
    /// A JSON file with the model's configuration, alone or as its field `model`
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

/// The model of a preset with microsoft/mpnet-base's vocabulary and annotated-mpnet's dropout.
pub fn preset_model(preset: Preset) -> ModelConfig {
    let sizes = preset.sizes();
    ModelConfig {
        encoder_layers: sizes.layers,
        encoder_embed_dim: sizes.width,
        encoder_ffn_dim: sizes.ffn,
        encoder_attention_heads: sizes.heads,
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: sizes.max_tokens,
        relative_attention_num_buckets: ModelConfig::default_num_buckets(sizes.max_tokens),
        relative_attention_max_distance: ModelConfig::default_max_distance(sizes.max_tokens),
        vocab_size: MPNET_BASE_VOCABULARY,
        padded_vocab_size: ModelConfig::pad_vocab(MPNET_BASE_VOCABULARY),
        pad_token_id: 1,
        bos_token_id: 0,
        eos_token_id: 2,
        unk_token_id: 3,
        mask_token_id: MPNET_BASE_VOCABULARY as i64 - 1,
        objective: Objective::default(),
        dropout: 0.1,
        attention_dropout: 0.1,
        activation_dropout: 0.1,
    }
}
