//! HuggingFace's `config.json`, written and read, and what HuggingFace cannot represent.

use super::ConvertError;
use mpnet_graphs::model::Objective;
use mpnet_graphs::model::config::{Activation, LAYER_NORM_EPSILON, ModelConfig, POSITION_OFFSET};
use mpnet_runtime::lfs::refuse_pointer;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::Path;

/// The file's name in a model folder.
pub const CONFIG_FILE: &str = "config.json";

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
    /// What a task's head adds.
    #[serde(flatten)]
    head: Map<String, Value>,
}

impl HfConfig {
    /// The same for a model of transformers' class `class`, of whose head there is more to say.
    pub fn of_class(mut self, class: &'static str, head: Map<String, Value>) -> HfConfig {
        self.architectures = [class];
        self.head = head;
        self
    }
}

/// The shortest decimal of an f32, as f64: 0.1 and not 0.10000000149.
pub(super) fn decimal(x: f32) -> f64 {
    x.to_string().parse().unwrap_or(f64::from(x))
}

impl HfConfig {
    /// The configuration of `config`'s model with `vocab_size` rows of embeddings and weights of type
    /// `dtype`.
    pub fn new(config: &ModelConfig, vocab_size: usize, dtype: &'static str) -> HfConfig {
        HfConfig {
            architectures: ["MPNetForMaskedLM"],
            attention_probs_dropout_prob: decimal(config.attention_dropout),
            bos_token_id: config.bos_token_id,
            dtype,
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
            vocab_size,
            head: Map::new(),
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

/// The activation of transformers' name, under its other names too.
fn activation(name: &str) -> Option<Activation> {
    match name {
        "gelu" | "gelu_python" => Some(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" | "gelu_accurate" => {
            Some(Activation::GeluAccurate)
        }
        "relu" => Some(Activation::Relu),
        "silu" | "swish" => Some(Activation::Silu),
        "relu2" => Some(Activation::Relu2),
        "tanh" => Some(Activation::Tanh),
        "linear" => Some(Activation::Linear),
        _ => None,
    }
}

/// What is needed of a `config.json`; what it leaves out is transformers' default.
#[derive(Debug, Deserialize)]
pub struct FoundConfig {
    model_type: String,
    #[serde(default = "default::ratio")]
    attention_probs_dropout_prob: f32,
    #[serde(default = "default::ratio")]
    hidden_dropout_prob: f32,
    #[serde(default)]
    bos_token_id: Option<i64>,
    #[serde(default)]
    eos_token_id: Option<i64>,
    #[serde(default)]
    pad_token_id: Option<i64>,
    #[serde(default = "default::activation")]
    hidden_act: String,
    #[serde(default = "default::width")]
    hidden_size: usize,
    #[serde(default = "default::inner")]
    intermediate_size: usize,
    #[serde(default = "default::epsilon")]
    layer_norm_eps: f64,
    #[serde(default = "default::positions")]
    max_position_embeddings: usize,
    #[serde(default = "default::layers")]
    num_attention_heads: usize,
    #[serde(default = "default::layers")]
    num_hidden_layers: usize,
    #[serde(default = "default::buckets")]
    relative_attention_num_buckets: usize,
    #[serde(default = "default::tied")]
    tie_word_embeddings: bool,
}

/// transformers' defaults of `MPNetConfig`.
mod default {
    pub fn ratio() -> f32 {
        0.1
    }
    pub fn activation() -> String {
        "gelu".into()
    }
    pub fn width() -> usize {
        768
    }
    pub fn inner() -> usize {
        3072
    }
    pub fn epsilon() -> f64 {
        1e-12
    }
    pub fn positions() -> usize {
        512
    }
    pub fn layers() -> usize {
        12
    }
    pub fn buckets() -> usize {
        32
    }
    pub fn tied() -> bool {
        true
    }
}

impl FoundConfig {
    /// Whether the LM head reads the word embeddings.
    pub fn is_tied(&self) -> bool {
        self.tie_word_embeddings
    }

    /// Reads the file of `folder`.
    ///
    /// # Errors
    /// Where it cannot be read or is of no MPNet model.
    pub fn read(folder: &Path) -> Result<FoundConfig, ConvertError> {
        let path = folder.join(CONFIG_FILE);
        refuse_pointer(&path)?;
        let text = std::fs::read(&path).map_err(ConvertError::io("read", &path))?;
        let found: FoundConfig =
            serde_json::from_slice(&text).map_err(|e| ConvertError::model(&path, e.to_string()))?;
        match found.model_type.as_str() {
            "mpnet" => Ok(found),
            other => Err(ConvertError::model(
                &path,
                format!("its model_type is '{other}', not 'mpnet'"),
            )),
        }
    }

    /// The model, whose embeddings have `rows` rows; what is taken otherwise than it says is noted.
    ///
    /// # Errors
    /// Where it is none that can be read.
    pub fn model(
        &self,
        folder: &Path,
        rows: usize,
        notes: &mut Vec<String>,
    ) -> Result<ModelConfig, ConvertError> {
        let refuse = |reason: String| ConvertError::model(&folder.join(CONFIG_FILE), reason);
        let activation_fn = activation(&self.hidden_act)
            .ok_or_else(|| refuse(format!("its hidden_act is '{}'", self.hidden_act)))?;
        let max_positions = self
            .max_position_embeddings
            .checked_sub(POSITION_OFFSET)
            .ok_or_else(|| refuse("it has fewer than 3 positions".into()))?;
        let epsilon = f64::from(LAYER_NORM_EPSILON);
        if (self.layer_norm_eps - epsilon).abs() > 1e-9 {
            notes.push(format!(
                "its layer_norm_eps is {:e}, this program's always 1e-5: outputs differ a little",
                self.layer_norm_eps
            ));
        }
        if activation_fn != Activation::Gelu {
            notes.push(format!(
                "transformers' LM head uses gelu whatever its configuration says, here it uses {}: \
                 logits differ, hidden states do not",
                activation_fn.name()
            ));
        }
        Ok(ModelConfig {
            encoder_layers: self.num_hidden_layers,
            encoder_embed_dim: self.hidden_size,
            encoder_ffn_dim: self.intermediate_size,
            encoder_attention_heads: self.num_attention_heads,
            activation_fn,
            normalize_before: false,
            max_positions,
            relative_attention_num_buckets: self.relative_attention_num_buckets,
            relative_attention_max_distance: HF_MAX_DISTANCE,
            vocab_size: rows,
            padded_vocab_size: rows,
            pad_token_id: self.pad_token_id.unwrap_or(1),
            bos_token_id: self.bos_token_id.unwrap_or(0),
            eos_token_id: self.eos_token_id.unwrap_or(2),
            unk_token_id: 3,
            mask_token_id: rows as i64 - 1,
            objective: Objective::default(),
            dropout: self.hidden_dropout_prob,
            attention_dropout: self.attention_probs_dropout_prob,
            activation_dropout: self.hidden_dropout_prob,
        })
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
