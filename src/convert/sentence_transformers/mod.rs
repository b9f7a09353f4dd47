//! Models of sentence embeddings: what stands on the encoder, and how sentence-transformers keeps it in a
//! folder.
//!
//! Folders of every release are read; what is written has the layout of the releases before 6, which all
//! of them read.

mod read;
mod write;

pub use read::{MODULES_FILE, encoder_folder, read};
pub use write::write_modules;

use super::ConvertError;
use super::tensors::Tensor;
use mpnet_graphs::model::config::{Activation, ModelConfig};
use mpnet_graphs::model::pooling::{Dense, Pooling, PoolingStep, SentenceHead};
use serde_json::{Map, Value};

/// The names of the ways of pooling in release 6, and the flags of earlier ones, in the order in which
/// those join the vectors.
const POOLINGS: [(Pooling, &str, &str); 6] = [
    (Pooling::Cls, "cls", "pooling_mode_cls_token"),
    (Pooling::Max, "max", "pooling_mode_max_tokens"),
    (Pooling::Mean, "mean", "pooling_mode_mean_tokens"),
    (
        Pooling::MeanSqrtLen,
        "mean_sqrt_len_tokens",
        "pooling_mode_mean_sqrt_len_tokens",
    ),
    (
        Pooling::WeightedMean,
        "weightedmean",
        "pooling_mode_weightedmean_tokens",
    ),
    (Pooling::LastToken, "lasttoken", "pooling_mode_lasttoken"),
];

/// A model of sentence embeddings, less its encoder.
#[derive(Debug, Clone)]
pub struct SentenceModel {
    /// Tokens of a text, special ones included; longer texts are cut.
    pub max_seq_length: usize,
    /// Whether texts are written in lower case before the tokenizer sees them.
    pub do_lower_case: bool,
    /// Ways of pooling whose vectors are joined in this order.
    pub pooling: Vec<Pooling>,
    /// Whether the tokens of a prompt are pooled with those of the text.
    pub include_prompt: bool,
    /// What is done with the pooled vector.
    pub steps: Vec<Step>,
    /// `config_sentence_transformers.json`: prompts, the default one, the similarity function.
    pub settings: Map<String, Value>,
    /// What the folder says beyond that, and is not kept.
    pub left_out: Vec<String>,
}

/// A module behind the pooling.
#[derive(Debug, Clone)]
pub enum Step {
    Normalize,
    Dense(DenseModule),
}

/// A linear layer with an activation.
#[derive(Debug, Clone)]
pub struct DenseModule {
    /// `[outputs, inputs]`
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    /// PyTorch's class.
    pub activation: String,
}

impl SentenceModel {
    /// The mean over the tokens of `model`'s hidden states, for texts as long as it has positions.
    pub fn mean(model: &ModelConfig) -> SentenceModel {
        SentenceModel {
            max_seq_length: model.max_positions,
            do_lower_case: false,
            pooling: vec![Pooling::Mean],
            include_prompt: true,
            steps: Vec::new(),
            settings: Map::new(),
            left_out: Vec::new(),
        }
    }

    /// The same with embeddings of length 1.
    pub fn normalized(mut self) -> SentenceModel {
        if !self.is_normalized() {
            self.steps.push(Step::Normalize);
        }
        self
    }

    /// Whether embeddings are of length 1.
    pub fn is_normalized(&self) -> bool {
        matches!(self.steps.last(), Some(Step::Normalize))
    }

    /// Whether a linear layer stands behind the pooling.
    pub fn has_dense(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Dense(_)))
    }

    /// Its modules in words.
    pub fn describe(&self) -> String {
        let modes = self.pooling.iter().map(|mode| name(*mode));
        let mut words = vec![format!(
            "Pooling ({})",
            modes.collect::<Vec<_>>().join(" + ")
        )];
        words.extend(self.steps.iter().map(|step| match step {
            Step::Normalize => "Normalize".to_owned(),
            Step::Dense(dense) => format!("Dense ({} outputs)", dense.weight.rows()),
        }));
        if let Some(prompts) = self.settings.get("prompts").and_then(Value::as_object)
            && !prompts.is_empty()
        {
            let names: Vec<&str> = prompts.keys().map(String::as_str).collect();
            words.push(format!("prompts ({})", names.join(", ")));
        }
        words.push(format!("a length of {} tokens", self.max_seq_length));
        words.join(", ")
    }

    /// The head that computes its embeddings, with the parameters of [`parameter`](Self::parameter).
    ///
    /// # Errors
    /// Where it has an activation that the graph does not know.
    pub fn head(&self) -> Result<SentenceHead, String> {
        let mut steps = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            steps.push(match step {
                Step::Normalize => PoolingStep::Normalize,
                Step::Dense(dense) => PoolingStep::Dense(Dense {
                    name: parameter_name(index),
                    inputs: dense.weight.shape.get(1).copied().unwrap_or(0),
                    outputs: dense.weight.rows(),
                    bias: dense.bias.is_some(),
                    activation: dense.activation()?,
                }),
            });
        }
        Ok(SentenceHead {
            pooling: self.pooling.clone(),
            steps,
        })
    }

    /// The tensor behind a parameter of the head; `None` for one of the encoder's.
    pub fn parameter(&self, name: &str) -> Option<&Tensor> {
        self.steps.iter().enumerate().find_map(|(index, step)| {
            let part = name.strip_prefix(&parameter_name(index))?;
            match (step, part) {
                (Step::Dense(dense), ".weight") => Some(&dense.weight),
                (Step::Dense(dense), ".bias") => dense.bias.as_ref(),
                (Step::Dense(_) | Step::Normalize, _) => None,
            }
        })
    }
}

impl DenseModule {
    fn activation(&self) -> Result<Activation, String> {
        match self.activation.rsplit('.').next().unwrap_or_default() {
            "Tanh" => Ok(Activation::Tanh),
            "Identity" => Ok(Activation::Linear),
            "ReLU" => Ok(Activation::Relu),
            "GELU" => Ok(Activation::Gelu),
            "SiLU" => Ok(Activation::Silu),
            _ => Err(format!(
                "its module Dense has the activation {}, which no graph is built with",
                self.activation
            )),
        }
    }
}

/// What the parameters of step `index` are called in a graph.
fn parameter_name(index: usize) -> String {
    format!("sentence.{index}")
}

/// Release 6's name of a way of pooling.
fn name(pooling: Pooling) -> &'static str {
    let found = POOLINGS.iter().find(|(known, ..)| *known == pooling);
    found.map_or("", |(_, name, _)| name)
}

/// Whether a folder with a model of this program can hold a file or folder of that name for
/// sentence-transformers.
pub fn is_module_file(name: &str) -> bool {
    let folder = || {
        let (index, class) = name.split_once('_')?;
        let known = ["Pooling", "Dense", "Normalize"].contains(&class);
        (known && index.parse::<usize>().is_ok()).then_some(())
    };
    [
        MODULES_FILE,
        read::TRANSFORMER_FILES[0],
        read::SETTINGS_FILE,
    ]
    .contains(&name)
        || folder().is_some()
}

/// A refusal of the sentence model in `folder`.
fn refuse(folder: &std::path::Path, reason: impl Into<String>) -> ConvertError {
    ConvertError::Module {
        path: folder.to_owned(),
        reason: reason.into(),
    }
}
