//! How a HuggingFace folder is written.

use super::ConvertError;
use super::sentence_transformers::SentenceModel;
use clap::ValueEnum;
use half::{bf16, f16};
use mpnet_graphs::model::config::ModelConfig;
use safetensors::Dtype;
use serde_json::{Map, Value};

/// Element type of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum WeightType {
    /// f32
    #[default]
    #[value(alias = "fp32")]
    Float32,
    /// f16
    #[value(alias = "fp16")]
    Float16,
    /// bf16
    #[value(name = "bfloat16", alias = "bf16")]
    BFloat16,
}

impl WeightType {
    /// transformers' name.
    pub fn name(self) -> &'static str {
        match self {
            WeightType::Float32 => "float32",
            WeightType::Float16 => "float16",
            WeightType::BFloat16 => "bfloat16",
        }
    }

    /// safetensors' type.
    pub(super) fn dtype(self) -> Dtype {
        match self {
            WeightType::Float32 => Dtype::F32,
            WeightType::Float16 => Dtype::F16,
            WeightType::BFloat16 => Dtype::BF16,
        }
    }

    /// Its little-endian bytes.
    pub(super) fn encode(self, values: &[f32]) -> Vec<u8> {
        let each = values.iter();
        match self {
            WeightType::Float32 => each.flat_map(|x| x.to_le_bytes()).collect(),
            WeightType::Float16 => each.flat_map(|x| f16::from_f32(*x).to_le_bytes()).collect(),
            WeightType::BFloat16 => each
                .flat_map(|x| bf16::from_f32(*x).to_le_bytes())
                .collect(),
        }
    }
}

/// What stands on the encoder in what is written.
#[derive(Debug, Clone)]
pub enum OutputHead {
    /// Nothing; in a HuggingFace folder the pooler, so that transformers' `AutoModel` finds every weight.
    None,
    /// The language model head.
    MaskedLm,
    /// What sentence-transformers makes embeddings with, and the pooler as without.
    Sentence(SentenceModel),
    /// What a task has trained, as transformers has it.
    Task(TaskHead),
}

/// A head that a task has trained beside the encoder, in the words of transformers.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskHead {
    /// The class of the whole model.
    pub class: &'static str,
    /// The kind of pipeline.
    pub pipeline: &'static str,
    /// Its parameters, which are called alike in checkpoints and there.
    pub parameters: Vec<String>,
    /// What `config.json` says of it.
    pub config: Map<String, Value>,
    /// Tokens of a text at most.
    pub max_tokens: usize,
}

impl OutputHead {
    /// transformers' class of a model with it.
    pub fn class(&self) -> &'static str {
        match self {
            OutputHead::MaskedLm => "MPNetForMaskedLM",
            OutputHead::None | OutputHead::Sentence(_) => "MPNetModel",
            OutputHead::Task(head) => head.class,
        }
    }

    /// What `config.json` says of it beside the class.
    pub fn config(&self) -> Map<String, Value> {
        match self {
            OutputHead::MaskedLm | OutputHead::None | OutputHead::Sentence(_) => Map::new(),
            OutputHead::Task(head) => head.config.clone(),
        }
    }

    /// The longest row of `model` with this head, in tokens.
    pub fn length(&self, model: &ModelConfig) -> usize {
        match self {
            OutputHead::None | OutputHead::MaskedLm => model.max_positions,
            OutputHead::Sentence(sentence) => sentence.max_seq_length,
            OutputHead::Task(head) => head.max_tokens,
        }
    }
}

/// How to write.
#[derive(Debug, Clone)]
pub struct HfOptions {
    pub head: OutputHead,
    pub dtype: WeightType,
    /// Bytes of weights in one file at most, unless one tensor alone has more.
    pub max_shard_size: u64,
    /// Cut the vocabulary to the tokenizer's size.
    pub trim_vocab: bool,
    pub tokenizer: bool,
    /// Write what HuggingFace cannot represent.
    pub force: bool,
}

/// Bytes of `text` as transformers reads it: 5GB, 500MB, 1GiB.
///
/// # Errors
/// Where it is no such size.
pub fn parse_size(text: &str) -> Result<u64, ConvertError> {
    let upper = text.trim().to_ascii_uppercase();
    let units = [
        ("KIB", 1 << 10),
        ("MIB", 1 << 20),
        ("GIB", 1 << 30),
        ("KB", 1000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
        ("", 1),
    ];
    let found = units.into_iter().find_map(|(unit, bytes)| {
        let number = upper.strip_suffix(unit)?.trim().parse::<f64>().ok()?;
        Some(number * bytes as f64)
    });
    found
        .filter(|&bytes| (1.0..1e18).contains(&bytes))
        .map(|bytes| bytes as u64)
        .ok_or_else(|| ConvertError::Size(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_transformers_reads_them() {
        for (text, bytes) in [
            ("5GB", 5_000_000_000),
            ("500 mb", 500_000_000),
            ("1GiB", 1 << 30),
            ("10KiB", 10 << 10),
            ("1.5kB", 1500),
            ("77", 77),
        ] {
            assert_eq!(parse_size(text).unwrap(), bytes, "{text}");
        }
        for text in ["", "GB", "-1GB", "0", "nan", "5 TB", "five"] {
            let said = parse_size(text).unwrap_err().to_string();
            assert!(said.contains("--max-shard-size"), "{said}");
        }
    }
}
