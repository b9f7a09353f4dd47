//! HuggingFace's `config.json`, and what HuggingFace cannot represent.

use mpnet_graphs::model::config::{Activation, LAYER_NORM_EPSILON, ModelConfig, POSITION_OFFSET};
use serde::Serialize;

/// The bucket count and distance that transformers computes with, whatever the file says.
const HF_BUCKETS: usize = 32;
const HF_MAX_DISTANCE: usize = 128;

/// `config.json` of an `MPNetForMaskedLM`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HfConfig {
    architectures: [&'static str; 1],
    attention_probs_dropout_prob: f64,
    bos_token_id: i64,
    dtype: &'static str,
    eos_token_id: i64,
    hidden_act: &'static str,
    hidden_dropout_prob: f64,
    hidden_size: usize,
    initializer_range: f64,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    model_type: &'static str,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    pad_token_id: i64,
    relative_attention_num_buckets: usize,
    tie_word_embeddings: bool,
    type_vocab_size: usize,
    vocab_size: usize,
}

/// The shortest decimal of an f32, as f64: 0.1 and not 0.10000000149.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

impl From<&ModelConfig> for HfConfig {
    fn from(config: &ModelConfig) -> HfConfig {
        HfConfig {
            architectures: ["MPNetForMaskedLM"],
            attention_probs_dropout_prob: decimal(config.attention_dropout),
            bos_token_id: config.bos_token_id,
            dtype: "float32",
            eos_token_id: config.eos_token_id,
            hidden_act: hidden_act(config.activation_fn),
            hidden_dropout_prob: decimal(config.dropout),
            hidden_size: config.encoder_embed_dim,
            initializer_range: 0.02,
            intermediate_size: config.encoder_ffn_dim,
            layer_norm_eps: decimal(LAYER_NORM_EPSILON),
            max_position_embeddings: config.max_positions + POSITION_OFFSET,
            model_type: "mpnet",
            num_attention_heads: config.encoder_attention_heads,
            num_hidden_layers: config.encoder_layers,
            pad_token_id: config.pad_token_id,
            relative_attention_num_buckets: config.relative_attention_num_buckets,
            tie_word_embeddings: true,
            type_vocab_size: 1,
            vocab_size: config.padded_vocab_size,
        }
    }
}

/// transformers' name of an activation.
fn hidden_act(activation: Activation) -> &'static str {
    match activation {
        Activation::Gelu => "gelu",
        Activation::GeluAccurate => "gelu_new",
        Activation::Relu => "relu",
        Activation::Silu => "silu",
        Activation::Relu2 => "relu2",
        Activation::Tanh => "tanh",
        Activation::Linear => "linear",
    }
}

/// What transformers would compute wrongly without a word.
pub fn unrepresentable(config: &ModelConfig) -> Vec<String> {
    let mut reasons = Vec::new();
    if config.normalize_before {
        reasons.push("its layers are pre-LN, with a final layer norm".to_owned());
    }
    let buckets = config.relative_attention_num_buckets;
    if buckets != HF_BUCKETS {
        reasons.push(format!(
            "it has {buckets} relative position buckets, transformers computes with {HF_BUCKETS}"
        ));
    }
    let distance = config.relative_attention_max_distance;
    if distance != HF_MAX_DISTANCE {
        reasons.push(format!(
            "its largest relative distance is {distance}, transformers computes with {HF_MAX_DISTANCE}"
        ));
    }
    if config.pad_token_id != 1 {
        reasons.push(format!(
            "its padding token is {}, transformers computes positions from 1",
            config.pad_token_id
        ));
    }
    reasons
}

/// What differs in transformers only in the LM head, whose activation is GELU there whatever
/// `config.json` says; the encoder agrees.
pub fn head_difference(config: &ModelConfig) -> Option<String> {
    (config.activation_fn != Activation::Gelu).then(|| {
        format!(
            "transformers' LM head always uses gelu, this model's uses {}: hidden states agree, \
             logits (fill-mask) do not",
            config.activation_fn.name()
        )
    })
}
