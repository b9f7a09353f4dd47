//! Small models for tests.

use mpnet_graphs::model::Objective;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::parameters::parameters;
use mpnet_runtime::engine::NamedArray;

/// A model that HuggingFace can represent, of `heads · width` hidden units.
pub(crate) fn config(layers: usize, heads: usize, width: usize, vocab: usize) -> ModelConfig {
    ModelConfig {
        encoder_layers: layers,
        encoder_embed_dim: heads * width,
        encoder_ffn_dim: 2 * heads * width + 1,
        encoder_attention_heads: heads,
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: 16,
        relative_attention_num_buckets: 32,
        relative_attention_max_distance: 128,
        vocab_size: vocab,
        padded_vocab_size: vocab + 3,
        pad_token_id: 1,
        bos_token_id: 0,
        eos_token_id: 2,
        unk_token_id: 3,
        mask_token_id: vocab as i64 - 1,
        objective: Objective::default(),
        dropout: 0.0,
        attention_dropout: 0.0,
        activation_dropout: 0.0,
    }
}

/// Its parameters, every element another number.
pub(crate) fn numbered(config: &ModelConfig) -> Vec<NamedArray> {
    let mut next = 0.0;
    parameters(config)
        .into_iter()
        .map(|parameter| NamedArray {
            values: (0..parameter.len())
                .map(|_| {
                    next += 1.0;
                    next
                })
                .collect(),
            name: parameter.name,
            shape: parameter.shape,
        })
        .collect()
}
