//! Named architectures.

use crate::train::config::Architecture;
use clap::ValueEnum;
use mpnet_graphs::model::config::{Activation, ModelConfig};

/// Sizes that flags left out take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Preset {
    /// 2 layers of 128: minutes on a laptop
    Tiny,
    /// 6 layers of 384
    Small,
    /// 12 layers of 768: microsoft/mpnet-base
    Base,
    /// 24 layers of 1024
    Large,
}

impl Preset {
    /// annotated-mpnet's dropout, of every kind.
    pub const DROPOUT: f32 = 0.1;

    /// The longest row, in tokens.
    pub fn max_tokens(self) -> usize {
        match self {
            Preset::Tiny => 128,
            Preset::Small | Preset::Base | Preset::Large => 512,
        }
    }

    /// The architecture where no other flag is given.
    pub fn architecture(self) -> Architecture {
        let (layers, width, heads) = match self {
            Preset::Tiny => (2, 128, 4),
            Preset::Small => (6, 384, 12),
            Preset::Base => (12, 768, 12),
            Preset::Large => (24, 1024, 16),
        };
        let positions = self.max_tokens();
        Architecture {
            encoder_layers: layers,
            encoder_embed_dim: width,
            encoder_ffn_dim: 4 * width,
            encoder_attention_heads: heads,
            activation_fn: Activation::Gelu,
            normalize_before: false,
            max_positions: positions,
            relative_attention_num_buckets: ModelConfig::default_num_buckets(positions),
            relative_attention_max_distance: ModelConfig::default_max_distance(positions),
            dropout: Self::DROPOUT,
            attention_dropout: Self::DROPOUT,
            activation_dropout: Self::DROPOUT,
        }
    }
}
