//! Everything that determines a training run, resolved and checked.

use super::execution::Execution;
use super::schedule::Schedule;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::optimizer::adamw::AdamW;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// The architecture, without what the tokenizer decides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Architecture {
    pub encoder_layers: usize,
    pub encoder_embed_dim: usize,
    pub encoder_ffn_dim: usize,
    pub encoder_attention_heads: usize,
    pub activation_fn: Activation,
    pub normalize_before: bool,
    pub max_positions: usize,
    pub relative_attention_num_buckets: usize,
    pub relative_attention_max_distance: usize,
    pub dropout: f32,
    pub attention_dropout: f32,
    pub activation_dropout: f32,
}

/// Token ids and sizes of a tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    pub size: usize,
    pub pad: i64,
    pub bos: i64,
    pub eos: i64,
    pub unk: i64,
    pub mask: i64,
}

impl Architecture {
    /// The model of this architecture for a vocabulary, whose table is padded to a multiple of 128.
    pub fn model(&self, vocabulary: &Vocabulary) -> ModelConfig {
        ModelConfig {
            encoder_layers: self.encoder_layers,
            encoder_embed_dim: self.encoder_embed_dim,
            encoder_ffn_dim: self.encoder_ffn_dim,
            encoder_attention_heads: self.encoder_attention_heads,
            activation_fn: self.activation_fn,
            normalize_before: self.normalize_before,
            max_positions: self.max_positions,
            relative_attention_num_buckets: self.relative_attention_num_buckets,
            relative_attention_max_distance: self.relative_attention_max_distance,
            vocab_size: vocabulary.size,
            padded_vocab_size: ModelConfig::pad_vocab(vocabulary.size),
            pad_token_id: vocabulary.pad,
            bos_token_id: vocabulary.bos,
            eos_token_id: vocabulary.eos,
            unk_token_id: vocabulary.unk,
            mask_token_id: vocabulary.mask,
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            activation_dropout: self.activation_dropout,
        }
    }
}

/// Where the text comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFiles {
    pub train_dir: PathBuf,
    pub valid_file: PathBuf,
    pub test_file: PathBuf,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainConfig {
    pub architecture: Architecture,
    pub tokenizer: String,
    pub text: TextFiles,
    /// Longest row, special tokens included.
    pub max_tokens: usize,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an update.
    pub update_freq: usize,
    /// Threads that tokenize and mask; 0 takes half of the cores. Changes no batch.
    pub data_threads: usize,
    pub schedule: Schedule,
    pub optimizer: AdamW,
    pub seed: u64,
    pub checkpoint_dir: PathBuf,
    /// Updates between two checkpoints; none but the best and the last where absent.
    pub checkpoint_interval: Option<u64>,
    /// Interval checkpoints to keep; all where absent.
    pub keep_checkpoints: Option<usize>,
    /// Updates between two evaluations.
    pub eval_interval: u64,
    /// Updates between two log lines.
    pub logging_steps: u64,
    /// Start from the weights of this model.
    #[serde(default)]
    pub start_from: Option<PathBuf>,
    /// Go on from this checkpoint, or from the latest of `checkpoint_dir` where the path is empty.
    pub resume: Option<PathBuf>,
    /// What runs the graph. Not saved: a run may go on elsewhere.
    #[serde(skip)]
    pub execution: Execution,
    /// Path of the ONNX Runtime build, where one was named.
    pub ort: Option<PathBuf>,
}
