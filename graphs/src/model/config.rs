//! The architecture of one MPNet model and the rules that a valid one obeys.

use super::objective::Objective;
use crate::ir::GraphError;
use serde::{Deserialize, Serialize};

/// Activation of the feed-forward layers and of the LM head, under annotated-mpnet's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// `x · Φ(x)`, by the error function.
    Gelu,
    /// The tanh approximation of GELU.
    GeluAccurate,
    /// `max(x, 0)`.
    Relu,
    /// `x · sigmoid(x)`.
    Silu,
    /// `max(x, 0)²`.
    Relu2,
    /// Hyperbolic tangent.
    Tanh,
    /// Identity.
    Linear,
}

impl Activation {
    /// Every activation, in the order in which help texts list them.
    pub const ALL: [Activation; 7] = [
        Activation::Gelu,
        Activation::GeluAccurate,
        Activation::Relu,
        Activation::Silu,
        Activation::Relu2,
        Activation::Tanh,
        Activation::Linear,
    ];

    /// annotated-mpnet's name.
    pub fn name(self) -> &'static str {
        match self {
            Activation::Gelu => "gelu",
            Activation::GeluAccurate => "gelu_accurate",
            Activation::Relu => "relu",
            Activation::Silu => "silu",
            Activation::Relu2 => "relu2",
            Activation::Tanh => "tanh",
            Activation::Linear => "linear",
        }
    }

    /// The activation of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Activation> {
        Activation::ALL.into_iter().find(|a| a.name() == name)
    }
}

/// Everything that determines the graph and its parameters.
///
/// The field names are annotated-mpnet's, as in its checkpoints' `args`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    pub encoder_layers: usize,
    /// D, the hidden width.
    pub encoder_embed_dim: usize,
    /// F, the width inside the feed-forward layer.
    pub encoder_ffn_dim: usize,
    /// H.
    pub encoder_attention_heads: usize,
    pub activation_fn: Activation,
    /// Pre-LN instead of post-LN layers.
    pub normalize_before: bool,
    /// Longest row, special tokens included; the position table has two rows more.
    pub max_positions: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    /// Entries of the tokenizer.
    pub vocab_size: usize,
    /// V, rows of `embed_tokens`: at least `vocab_size`.
    pub padded_vocab_size: usize,
    pub pad_token_id: i64,
    pub bos_token_id: i64,
    pub eos_token_id: i64,
    pub unk_token_id: i64,
    pub mask_token_id: i64,
    /// What the model is trained to predict; checkpoints that don't say were trained as MPNet.
    #[serde(flatten)]
    pub objective: Objective,
    /// Dropout after the embeddings and after each sublayer.
    #[serde(default)]
    pub dropout: f32,
    /// Dropout of the attention probabilities.
    #[serde(default)]
    pub attention_dropout: f32,
    /// Dropout after the feed-forward activation.
    #[serde(default)]
    pub activation_dropout: f32,
}

/// Epsilon of every LayerNorm.
pub const LAYER_NORM_EPSILON: f32 = 1e-5;

/// Position ids start after the padding id, as in fairseq: row 2 holds position 0.
pub const POSITION_OFFSET: usize = 2;

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ConfigError {
    #[error("{field} is {value}; {most} is the most")]
    TooLarge {
        field: &'static str,
        value: usize,
        most: usize,
    },
    #[error("{field} must be at least 1")]
    Zero { field: &'static str },
    #[error(
        "encoder_embed_dim {dim} is not divisible by encoder_attention_heads {heads}: choose a width that is a multiple of the number of heads"
    )]
    Heads { dim: usize, heads: usize },
    #[error("vocab_size {vocab} is larger than the embedding table's {padded} rows")]
    Vocabulary { vocab: usize, padded: usize },
    #[error("{field} {id} is outside the vocabulary of {vocab} tokens")]
    TokenId {
        field: &'static str,
        id: i64,
        vocab: usize,
    },
    #[error(
        "relative_attention_num_buckets {0} is not a multiple of 4: each direction needs exact and logarithmic buckets"
    )]
    Buckets(usize),
    #[error(
        "relative_attention_max_distance {distance} must be above {exact}, the last exactly bucketed distance of {buckets} buckets"
    )]
    Distance {
        distance: usize,
        exact: usize,
        buckets: usize,
    },
    #[error("{field} {value} is not a probability in [0, 1)")]
    Probability { field: &'static str, value: f32 },
}

impl From<ConfigError> for GraphError {
    fn from(error: ConfigError) -> GraphError {
        GraphError::Description(error.to_string())
    }
}

/// Largest size of a model.
const MOST: usize = 1 << 28;
/// Most layers.
const MOST_LAYERS: usize = 4096;

impl ModelConfig {
    /// Width of one attention head, D / H.
    pub fn head_dim(&self) -> usize {
        self.encoder_embed_dim / self.encoder_attention_heads
    }

    /// Default bucket count for rows of up to `max_positions` tokens: 32 for 512, growing with the
    /// length, rounded up to a multiple of 8 (annotated-mpnet).
    pub fn default_num_buckets(max_positions: usize) -> usize {
        (32 * max_positions)
            .div_ceil(512)
            .max(32)
            .next_multiple_of(8)
    }

    /// Default largest distinguished distance: 128 for 512 tokens, growing likewise.
    pub fn default_max_distance(max_positions: usize) -> usize {
        (128 * max_positions)
            .div_ceil(512)
            .max(128)
            .next_multiple_of(8)
    }

    /// Rows of the embedding table for a fresh model: `vocab_size` up to a multiple of 128.
    pub fn pad_vocab(vocab_size: usize) -> usize {
        vocab_size.next_multiple_of(128)
    }

    /// Checks every rule that the graph relies on.
    pub fn validate(&self) -> Result<(), ConfigError> {
        for (field, value) in [
            ("encoder_layers", self.encoder_layers),
            ("encoder_embed_dim", self.encoder_embed_dim),
            ("encoder_ffn_dim", self.encoder_ffn_dim),
            ("encoder_attention_heads", self.encoder_attention_heads),
            ("max_positions", self.max_positions),
            ("vocab_size", self.vocab_size),
        ] {
            if value == 0 {
                return Err(ConfigError::Zero { field });
            }
        }
        // Products of two sizes and small factors stay within 64 bits.
        for (field, value, most) in [
            ("encoder_layers", self.encoder_layers, MOST_LAYERS),
            ("encoder_embed_dim", self.encoder_embed_dim, MOST),
            ("encoder_ffn_dim", self.encoder_ffn_dim, MOST),
            ("max_positions", self.max_positions, MOST),
            ("padded_vocab_size", self.padded_vocab_size, MOST),
            (
                "relative_attention_num_buckets",
                self.relative_attention_num_buckets,
                MOST,
            ),
        ] {
            if value > most {
                return Err(ConfigError::TooLarge { field, value, most });
            }
        }
        if !self
            .encoder_embed_dim
            .is_multiple_of(self.encoder_attention_heads)
        {
            return Err(ConfigError::Heads {
                dim: self.encoder_embed_dim,
                heads: self.encoder_attention_heads,
            });
        }
        if self.vocab_size > self.padded_vocab_size {
            return Err(ConfigError::Vocabulary {
                vocab: self.vocab_size,
                padded: self.padded_vocab_size,
            });
        }
        for (field, id) in [
            ("pad_token_id", self.pad_token_id),
            ("bos_token_id", self.bos_token_id),
            ("eos_token_id", self.eos_token_id),
            ("unk_token_id", self.unk_token_id),
            ("mask_token_id", self.mask_token_id),
        ] {
            if usize::try_from(id).map_or(true, |id| id >= self.vocab_size) {
                return Err(ConfigError::TokenId {
                    field,
                    id,
                    vocab: self.vocab_size,
                });
            }
        }
        let buckets = self.relative_attention_num_buckets;
        if buckets == 0 || !buckets.is_multiple_of(4) {
            return Err(ConfigError::Buckets(buckets));
        }
        if self.relative_attention_max_distance <= buckets / 4 {
            return Err(ConfigError::Distance {
                distance: self.relative_attention_max_distance,
                exact: buckets / 4,
                buckets,
            });
        }
        for (field, value) in [
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
            ("activation_dropout", self.activation_dropout),
        ] {
            if !(0.0..1.0).contains(&value) {
                return Err(ConfigError::Probability { field, value });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing::tiny;

    /// Why the tiny model is refused after `change`.
    fn refusal(change: impl FnOnce(&mut ModelConfig)) -> String {
        let mut config = tiny();
        change(&mut config);
        match config.validate() {
            Ok(()) => "valid".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn the_tiny_model_is_valid() {
        assert_eq!(refusal(|_| {}), "valid");
    }

    #[test]
    fn sizes_are_positive() {
        let layers = refusal(|c| c.encoder_layers = 0);
        assert_eq!(layers, "encoder_layers must be at least 1");
        let width = refusal(|c| c.encoder_embed_dim = 0);
        assert_eq!(width, "encoder_embed_dim must be at least 1");
        let inner = refusal(|c| c.encoder_ffn_dim = 0);
        assert_eq!(inner, "encoder_ffn_dim must be at least 1");
        let heads = refusal(|c| c.encoder_attention_heads = 0);
        assert_eq!(heads, "encoder_attention_heads must be at least 1");
        let positions = refusal(|c| c.max_positions = 0);
        assert_eq!(positions, "max_positions must be at least 1");
        let vocabulary = refusal(|c| c.vocab_size = 0);
        assert_eq!(vocabulary, "vocab_size must be at least 1");
    }

    #[test]
    fn heads_divide_the_width_and_tokens_are_in_the_vocabulary() {
        let heads = refusal(|c| c.encoder_attention_heads = 3);
        assert!(
            heads.starts_with("encoder_embed_dim 8 is not divisible by encoder_attention_heads 3")
        );
        let table = refusal(|c| c.padded_vocab_size = 13);
        assert_eq!(
            table,
            "vocab_size 14 is larger than the embedding table's 13 rows"
        );
        let mask = refusal(|c| c.mask_token_id = 14);
        assert_eq!(
            mask,
            "mask_token_id 14 is outside the vocabulary of 14 tokens"
        );
        let pad = refusal(|c| c.pad_token_id = -1);
        assert_eq!(
            pad,
            "pad_token_id -1 is outside the vocabulary of 14 tokens"
        );
    }

    #[test]
    fn buckets_cover_both_directions_and_reach_beyond_the_exact_ones() {
        for buckets in [0, 2, 30] {
            let text = refusal(|c| c.relative_attention_num_buckets = buckets);
            assert!(
                text.contains(&format!("{buckets} is not a multiple of 4")),
                "{text}"
            );
        }
        let distance = refusal(|c| c.relative_attention_max_distance = 2);
        assert!(
            distance.contains("must be above 2, the last exactly"),
            "{distance}"
        );
    }

    #[test]
    fn ratios_are_probabilities_below_1() {
        for value in [1.0, -0.1, f32::NAN] {
            let text = refusal(|c| c.attention_dropout = value);
            assert_eq!(
                text,
                format!("attention_dropout {value} is not a probability in [0, 1)")
            );
        }
        assert!(refusal(|c| c.dropout = 1.5).starts_with("dropout 1.5"));
        assert!(refusal(|c| c.activation_dropout = 1.5).starts_with("activation_dropout 1.5"));
    }

    #[test]
    fn defaults_grow_with_the_length() {
        let of = |length| {
            (
                ModelConfig::default_num_buckets(length),
                ModelConfig::default_max_distance(length),
            )
        };
        assert_eq!(of(128), (32, 128));
        assert_eq!(of(512), (32, 128));
        assert_eq!(of(640), (40, 160));
        assert_eq!(of(1000), (64, 256));
        assert_eq!(of(2048), (128, 512));
        assert_eq!([30527, 30592].map(ModelConfig::pad_vocab), [30592, 30592]);
    }

    #[test]
    fn activations_are_found_by_name() {
        for activation in Activation::ALL {
            assert_eq!(Activation::from_name(activation.name()), Some(activation));
        }
        assert_eq!(Activation::from_name("swish"), None);
    }
}
