//! Named architectures.

use clap::ValueEnum;

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

/// The sizes of a preset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    pub layers: usize,
    pub width: usize,
    pub ffn: usize,
    pub heads: usize,
    pub max_tokens: usize,
}

impl Preset {
    /// The sizes.
    pub fn sizes(self) -> Sizes {
        let (layers, width, heads, max_tokens) = match self {
            Preset::Tiny => (2, 128, 4, 128),
            Preset::Small => (6, 384, 12, 512),
            Preset::Base => (12, 768, 12, 512),
            Preset::Large => (24, 1024, 16, 512),
        };
        Sizes {
            layers,
            width,
            ffn: 4 * width,
            heads,
            max_tokens,
        }
    }
}
