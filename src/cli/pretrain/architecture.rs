//! The flags of the model's shape.

use crate::cli::exit::UsageError;
use crate::cli::presets::Preset;
use crate::cli::values::{below_one, count, named};
use crate::train::config::Architecture;
use crate::train::flags::Effect;
use clap::Args;
use mpnet_graphs::model::config::{Activation, ModelConfig};

/// The model, and the longest row that it is trained on.
#[derive(Debug, Args)]
#[command(next_help_heading = "Architecture")]
pub struct ArchitectureArgs {
    /// Start from this architecture, which the flags below refine
    #[arg(long, value_enum, default_value_t = Preset::Base,
        add = Effect::Updates(&["architecture"]))]
    pub preset: Preset,
    /// Encoder layers [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.encoder_layers"]))]
    pub encoder_layers: Option<usize>,
    /// Hidden width [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.encoder_embed_dim"]))]
    pub encoder_embed_dim: Option<usize>,
    /// Width inside the feed-forward layers [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.encoder_ffn_dim"]))]
    pub encoder_ffn_dim: Option<usize>,
    /// Attention heads [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.encoder_attention_heads"]))]
    pub encoder_attention_heads: Option<usize>,
    /// Dropout after the embeddings and each sublayer
    #[arg(long, value_name = "SHARE", default_value_t = Preset::DROPOUT, value_parser = below_one,
        add = Effect::Updates(&["architecture.dropout"]))]
    pub dropout: f32,
    /// Dropout of the attention probabilities
    #[arg(long, value_name = "SHARE", default_value_t = Preset::DROPOUT, value_parser = below_one,
        add = Effect::Updates(&["architecture.attention_dropout"]))]
    pub attention_dropout: f32,
    /// Dropout after the feed-forward activation
    #[arg(long, value_name = "SHARE", default_value_t = Preset::DROPOUT, value_parser = below_one,
        add = Effect::Updates(&["architecture.activation_dropout"]))]
    pub activation_dropout: f32,
    /// Positions of the model [default: --max-tokens]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.max_positions"]))]
    pub max_positions: Option<usize>,
    /// Longest row, special tokens included [default: the preset's]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["max_tokens"]))]
    pub max_tokens: Option<usize>,
    /// Buckets of relative distances [default: from the length]
    #[arg(long, visible_alias = "num_buckets", value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.relative_attention_num_buckets"]))]
    pub relative_attention_num_buckets: Option<usize>,
    /// Largest distance told apart [default: from the length]
    #[arg(long, value_name = "N", value_parser = count::<usize>,
        add = Effect::Updates(&["architecture.relative_attention_max_distance"]))]
    pub relative_attention_max_distance: Option<usize>,
    /// Activation function
    #[arg(long, visible_alias = "activation", value_name = "NAME",
        default_value = Activation::Gelu.name(),
        value_parser = named(&Activation::ALL, Activation::name),
        add = Effect::Updates(&["architecture.activation_fn"]))]
    pub activation_fn: Activation,
    /// Make the layers Pre-LN instead of Post-LN
    #[arg(long, visible_alias = "prenorm",
        add = Effect::Updates(&["architecture.normalize_before"]))]
    pub normalize_before: bool,
}

impl ArchitectureArgs {
    /// The architecture, and the longest row in tokens.
    ///
    /// # Errors
    /// Where a row is longer than the model has positions. What else a model refuses is found by
    /// [`ModelConfig::validate`].
    pub fn resolve(&self) -> Result<(Architecture, usize), UsageError> {
        let (preset, longest) = (self.preset.architecture(), self.preset.max_tokens());
        let max_tokens = self.max_tokens.unwrap_or(match self.max_positions {
            Some(positions) => longest.min(positions),
            None => longest,
        });
        let max_positions = self.max_positions.unwrap_or(max_tokens);
        if max_tokens > max_positions {
            return Err(UsageError(format!(
                "--max-tokens {max_tokens} is above --max-positions {max_positions}: the model would \
                 have no position for the last tokens of a row"
            )));
        }
        let architecture = Architecture {
            encoder_layers: self.encoder_layers.unwrap_or(preset.encoder_layers),
            encoder_embed_dim: self.encoder_embed_dim.unwrap_or(preset.encoder_embed_dim),
            encoder_ffn_dim: self.encoder_ffn_dim.unwrap_or(preset.encoder_ffn_dim),
            encoder_attention_heads: self
                .encoder_attention_heads
                .unwrap_or(preset.encoder_attention_heads),
            activation_fn: self.activation_fn,
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
