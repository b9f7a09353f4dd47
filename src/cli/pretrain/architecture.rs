//! The flags of the model's shape.

use super::range::below_one;
use crate::cli::exit::UsageError;
use crate::cli::presets::Preset;
use crate::train::config::Architecture;
use clap::Args;
use clap::builder::PossibleValuesParser;
use mpnet_graphs::model::config::{Activation, ModelConfig};

/// The model, and the longest row that it is trained on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Architecture")]
pub struct ArchitectureArgs {
    /// Architecture that the flags below refine
    #[arg(long, value_enum, default_value_t = Preset::Base)]
    pub preset: Preset,
    /// Encoder layers [default: the preset's]
    #[arg(long)]
    pub encoder_layers: Option<usize>,
    /// Hidden width [default: the preset's]
    #[arg(long)]
    pub encoder_embed_dim: Option<usize>,
    /// Width inside the feed-forward layers [default: the preset's]
    #[arg(long)]
    pub encoder_ffn_dim: Option<usize>,
    /// Attention heads [default: the preset's]
    #[arg(long)]
    pub encoder_attention_heads: Option<usize>,
    /// Dropout after the embeddings and each sublayer
    #[arg(long, default_value_t = 0.1)]
    pub dropout: f32,
    /// Dropout of the attention probabilities
    #[arg(long, default_value_t = 0.1)]
    pub attention_dropout: f32,
    /// Dropout after the feed-forward activation
    #[arg(long, default_value_t = 0.1)]
    pub activation_dropout: f32,
    /// Positions of the model [default: --max-tokens]
    #[arg(long)]
    pub max_positions: Option<usize>,
    /// Longest row, special tokens included [default: the preset's]
    #[arg(long)]
    pub max_tokens: Option<usize>,
    /// Buckets of relative distances [default: from the length]
    #[arg(long)]
    pub relative_attention_num_buckets: Option<usize>,
    /// Largest distance told apart [default: from the length]
    #[arg(long)]
    pub relative_attention_max_distance: Option<usize>,
    /// Activation function
    #[arg(long, default_value = "gelu",
        value_parser = PossibleValuesParser::new(Activation::ALL.map(Activation::name)))]
    pub activation_fn: String,
    /// Pre-LN instead of post-LN layers
    #[arg(long)]
    pub normalize_before: bool,
}

impl ArchitectureArgs {
    /// The architecture, and the longest row in tokens.
    ///
    /// # Errors
    /// Where sizes contradict each other.
    pub fn resolve(&self) -> Result<(Architecture, usize), UsageError> {
        let sizes = self.preset.sizes();
        let max_tokens = self.max_tokens.unwrap_or(match self.max_positions {
            Some(positions) => sizes.max_tokens.min(positions),
            None => sizes.max_tokens,
        });
        let max_positions = self.max_positions.unwrap_or(max_tokens);
        if max_tokens > max_positions {
            return Err(UsageError(format!(
                "--max-tokens {max_tokens} is above --max-positions {max_positions}: the model would \
                 have no position for the last tokens of a row"
            )));
        }
        if max_tokens < 3 {
            return Err(UsageError(format!(
                "--max-tokens {max_tokens} leaves no room for text between <s> and </s>"
            )));
        }
        let width = self.encoder_embed_dim.unwrap_or(sizes.width);
        let heads = self.encoder_attention_heads.unwrap_or(sizes.heads);
        if heads == 0 || !width.is_multiple_of(heads) {
            return Err(UsageError(format!(
                "--encoder-attention-heads {heads} does not divide --encoder-embed-dim {width}"
            )));
        }
        below_one("--dropout", self.dropout)?;
        below_one("--attention-dropout", self.attention_dropout)?;
        below_one("--activation-dropout", self.activation_dropout)?;
        let activation_fn = Activation::from_name(&self.activation_fn).ok_or_else(|| {
            UsageError(format!("there is no activation '{}'", self.activation_fn))
        })?;
        let architecture = Architecture {
            encoder_layers: self.encoder_layers.unwrap_or(sizes.layers),
            encoder_embed_dim: width,
            encoder_ffn_dim: self.encoder_ffn_dim.unwrap_or(sizes.ffn),
            encoder_attention_heads: heads,
            activation_fn,
            normalize_before: self.normalize_before,
            max_positions,
            relative_attention_num_buckets: self
                .relative_attention_num_buckets
                .unwrap_or_else(|| ModelConfig::default_num_buckets(max_positions)),
            relative_attention_max_distance: self
                .relative_attention_max_distance
                .unwrap_or_else(|| ModelConfig::default_max_distance(max_positions)),
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            activation_dropout: self.activation_dropout,
        };
        Ok((architecture, max_tokens))
    }
}
