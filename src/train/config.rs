//! Everything that determines a training run, resolved and checked.

use super::execution::{Execution, Requested};
use super::log::LogConfig;
use super::log::record::LossUnit;
use super::position::BestBy;
use super::schedule::Schedule;
use super::tasks::Finetuning;
use crate::data::hub::DatasetName;
use crate::data::source::{Fields, ReadOptions};
use crate::data::tokenizer::Vocabulary;
use crate::data::{BreakMode, Masking};
use crate::launch::{Launch, WORLD_SIZE};
use mpnet_graphs::ir::{Bindings, Symbol};
use mpnet_graphs::model::Objective;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::gathering::WHOLE;
use mpnet_graphs::optimizer::adamw::AdamW;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

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

impl Architecture {
    /// The model of this architecture for a vocabulary, whose table is padded to a multiple of 128,
    /// trained as MPNet.
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
            objective: Objective::default(),
            dropout: self.dropout,
            attention_dropout: self.attention_dropout,
            activation_dropout: self.activation_dropout,
        }
    }
}

/// Where the text comes from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Text {
    Files(TextFiles),
    Dataset(Dataset),
    Mix(Mix),
}

/// Several texts, from each of which as many texts come as its weight says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Mix {
    pub parts: Vec<MixPart>,
    pub valid_file: PathBuf,
    pub test_file: PathBuf,
}

/// One text of a mixture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixPart {
    pub from: MixFrom,
    /// Above 0; only its share of all weights counts.
    pub weight: f64,
    /// Fields of the text, where they are others than the run's.
    pub text_field: Option<Fields>,
    /// Shorter texts are not trained on, in characters.
    pub min_text_length: usize,
}

/// Where a text of a mixture comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MixFrom {
    /// A folder, a file or a pattern.
    Files(PathBuf),
    /// A dataset on the HuggingFace Hub.
    Dataset {
        name: DatasetName,
        split: String,
        revision: String,
    },
}

/// Folders, files or patterns whose texts are one text; at least one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrSeveral", into = "OneOrSeveral")]
pub struct TextPaths(pub Vec<PathBuf>);

/// One path stands alone, as in checkpoints from before there could be several.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrSeveral {
    One(PathBuf),
    Several(Vec<PathBuf>),
}

impl From<OneOrSeveral> for TextPaths {
    fn from(written: OneOrSeveral) -> Self {
        match written {
            OneOrSeveral::One(path) => TextPaths(vec![path]),
            OneOrSeveral::Several(paths) => TextPaths(paths),
        }
    }
}

impl From<TextPaths> for OneOrSeveral {
    fn from(TextPaths(paths): TextPaths) -> Self {
        match <[PathBuf; 1]>::try_from(paths) {
            Ok([path]) => OneOrSeveral::One(path),
            Err(several) => OneOrSeveral::Several(several),
        }
    }
}

impl fmt::Display for TextPaths {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: Vec<String> = (self.0.iter())
            .map(|path| path.display().to_string())
            .collect();
        f.write_str(&shown.join(" and "))
    }
}

/// Files, folders or patterns of this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextFiles {
    pub train_dir: TextPaths,
    pub valid_file: PathBuf,
    pub test_file: PathBuf,
}

/// A dataset on the HuggingFace Hub.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dataset {
    pub name: DatasetName,
    pub split: String,
    pub revision: String,
    /// Texts to validate on, and as many to test on: the first of the split.
    pub eval_samples: usize,
}

/// How texts become batches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batching {
    /// Field or column of the text.
    pub text_field: Fields,
    /// Shorter texts are not trained on, in characters.
    pub min_text_length: usize,
    pub sample_break_mode: BreakMode,
    /// Rows of the shuffle buffer.
    pub buffer_size: usize,
    pub group_by_length: bool,
    /// Whether the likes of `<s>` and `<mask>` in a text are those tokens, not words.
    #[serde(default)]
    pub special_in_text: bool,
    /// Tokens of a micro-batch at most, padding included, instead of a number of rows.
    pub max_batch_tokens: Option<usize>,
}

/// What is trained, and on what. In files its settings stand beside those of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum TaskConfig {
    Pretraining(Pretraining),
    Finetuning(Finetuning),
}

/// Pretraining on text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pretraining {
    pub architecture: Architecture,
    pub text: Text,
    pub batching: Batching,
    /// What is predicted, and from what; checkpoints that don't say trained as MPNet.
    pub masking: Masking,
}

impl TaskConfig {
    /// The settings of pretraining, where it is that.
    pub fn pretraining(&self) -> Option<&Pretraining> {
        match self {
            TaskConfig::Pretraining(task) => Some(task),
            TaskConfig::Finetuning(_) => None,
        }
    }

    /// By what validations are compared.
    pub fn best_by(&self) -> BestBy {
        match self {
            TaskConfig::Pretraining(_) => BestBy::Loss,
            TaskConfig::Finetuning(task) => task.best_by,
        }
    }

    /// Rows of a micro-batch, where they are a part of a batch.
    pub fn part(&self) -> Option<usize> {
        match self {
            TaskConfig::Pretraining(_) => None,
            TaskConfig::Finetuning(task) => task.task.get().part(),
        }
    }

    /// Tokens of a micro-batch at most, where they decide how many rows it has.
    pub fn max_batch_tokens(&self) -> Option<usize> {
        match self {
            TaskConfig::Pretraining(task) => task.batching.max_batch_tokens,
            TaskConfig::Finetuning(_) => None,
        }
    }

    /// What its losses are told in.
    pub fn unit(&self) -> LossUnit {
        match self {
            TaskConfig::Pretraining(_) => LossUnit::BitsPerToken,
            TaskConfig::Finetuning(task) => task.task.get().unit(),
        }
    }
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TrainConfig {
    #[serde(flatten)]
    pub task: TaskConfig,
    /// The tokenizer that was asked for; without one, that of the model to start from or of the
    /// checkpoint to resume, else microsoft/mpnet-base's.
    pub tokenizer: Option<String>,
    /// Longest row, special tokens included.
    pub max_tokens: usize,
    /// Rows of a micro-batch, or of the batch whose parts the micro-batches of an update are.
    pub batch_size: usize,
    /// Micro-batches of an update, those of all ranks together.
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
    pub start_from: Option<PathBuf>,
    /// Go on from this checkpoint, or from the latest of `checkpoint_dir` where the path is empty. Not
    /// saved, so that a resumed run leaves the checkpoints of one that was not stopped.
    #[serde(skip)]
    pub resume: Option<PathBuf>,
    /// What runs the graph. Not saved: a run may go on elsewhere.
    #[serde(skip)]
    pub execution: Execution,
    /// Who this process is among those that train together. Not saved: a run may go on with others.
    #[serde(skip)]
    pub launch: Launch,
    /// Libraries that were named, of which the build is saved.
    #[serde(flatten)]
    pub requested: Requested,
    /// Not saved either.
    #[serde(skip)]
    pub operation: Operation,
}

/// How a run is looked after; changes no update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// Whether checkpoints hold the optimizer's state.
    pub save_optimizer_state: bool,
    /// Resume although settings have changed.
    pub accept_changes: bool,
    /// Updates skipped in a row after which the run stops.
    pub max_skipped_updates: u64,
    /// Bad rows of the text that are passed over in one pass; one more ends the run.
    pub max_bad_rows: u64,
    /// Only say what would run.
    pub dry_run: bool,
    /// How long a checkpoint is tried again that could not be written.
    pub save_patience: Duration,
    /// How long ranks wait for each other.
    pub collective_timeout: Duration,
    /// Whether collectives are by algorithms that give the same bits each time.
    pub deterministic: bool,
    pub log: LogConfig,
}

impl Default for Operation {
    fn default() -> Self {
        Operation {
            save_optimizer_state: true,
            accept_changes: false,
            max_skipped_updates: 20,
            max_bad_rows: 0,
            dry_run: false,
            save_patience: Duration::from_secs(600),
            collective_timeout: Duration::from_secs(100),
            deterministic: false,
            log: LogConfig::default(),
        }
    }
}

impl TrainConfig {
    /// How rows are read, of which these fields are the text.
    pub fn reading(&self, fields: &Fields) -> ReadOptions {
        ReadOptions {
            fields: fields.clone(),
            max_bad_rows: self.operation.max_bad_rows,
        }
    }

    /// The configuration as checkpoints and the log have it. What depends on the number of ranks is no part of a run, but
    /// said.
    ///
    /// # Errors
    /// Where it cannot be written as JSON.
    pub fn saved(&self) -> serde_json::Result<serde_json::Value> {
        let mut saved = serde_json::to_value(self)?;
        if self.launch.world > 1 {
            saved[WORLD_SIZE] = self.launch.world.into();
        }
        Ok(saved)
    }

    /// Rows of a micro-batch, where their number is given.
    pub fn rows_at_once(&self) -> usize {
        self.task.part().unwrap_or(self.batch_size)
    }

    /// The sizes of a micro-batch of so many rows of that length.
    pub fn batch_sizes(&self, rows: usize, length: usize) -> Bindings {
        match &self.task {
            TaskConfig::Pretraining(task) => task.masking.batch_sizes(rows, length),
            TaskConfig::Finetuning(task) => {
                let [rows, length] = [(Symbol::BATCH, rows), (Symbol::LENGTH, length)];
                match task.task.get().part() {
                    Some(_) => Bindings::new([rows, length, (WHOLE, self.batch_size)]),
                    None => Bindings::new([rows, length]),
                }
            }
        }
    }

    /// The sizes of the largest micro-batch.
    pub fn largest_batch(&self) -> Bindings {
        let rows = match self.task.max_batch_tokens() {
            Some(limit) => (limit / self.max_tokens.max(1)).max(1),
            None => self.rows_at_once(),
        };
        self.batch_sizes(rows, self.max_tokens)
    }
}
