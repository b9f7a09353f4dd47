//! Reads a golden case: `case.json`, `weights`, `batches` and `expected` as safetensors.

use crate::data::collator::Batch;
use crate::train::schedule::{Decay, Schedule};
use anyhow::{Context, Result};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::parameters;
use mpnet_graphs::optimizer::adamw::AdamW;
use mpnet_runtime::engine::NamedArray;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What can be wrong with a case's files.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    #[error("{file} has no tensor '{name}'")]
    Missing { file: String, name: String },
    #[error("{file}: '{name}' is {found:?}, not {expected}")]
    DType {
        file: String,
        name: String,
        found: Dtype,
        expected: &'static str,
    },
    #[error("{file}: '{name}' has shape {found:?}, expected {expected:?}")]
    Shape {
        file: String,
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
    #[error("the case has no updates: both updates and update_freq must be at least 1")]
    NoUpdates,
}

/// Hyper-parameters of a case.
#[derive(Debug, Clone, Deserialize)]
pub struct Training {
    pub lr: f64,
    pub beta1: f32,
    pub beta2: f32,
    pub adam_eps: f32,
    pub weight_decay: f32,
    pub clip_grad_norm: f32,
    pub warmup_updates: u64,
    pub total_updates: u64,
    pub power: f64,
    pub end_learning_rate: f64,
    /// Micro-batches of an update.
    pub update_freq: usize,
    /// Updates to make.
    pub updates: usize,
}

impl Training {
    /// The optimizer's settings.
    pub fn adamw(&self) -> AdamW {
        AdamW {
            beta1: self.beta1,
            beta2: self.beta2,
            epsilon: self.adam_eps,
            weight_decay: self.weight_decay,
            clip_grad_norm: self.clip_grad_norm,
        }
    }

    /// The learning rates.
    pub fn schedule(&self) -> Schedule {
        Schedule {
            peak: self.lr,
            end: self.end_learning_rate,
            power: self.power,
            warmup_updates: self.warmup_updates,
            total_updates: self.total_updates,
            // annotated-mpnet has no other.
            decay: Decay::Polynomial,
        }
    }
}

/// `case.json`
#[derive(Deserialize)]
struct Description {
    name: String,
    model: ModelConfig,
    train: Training,
}

/// A golden case in memory.
pub struct Case {
    pub name: String,
    pub model: ModelConfig,
    pub train: Training,
    /// Starting weights, in the order of the model's parameters.
    pub weights: Vec<NamedArray>,
    folder: PathBuf,
    batches: Vec<u8>,
    expected: Vec<u8>,
}

impl Case {
    /// Reads the case in `folder`.
    ///
    /// # Errors
    /// Where a file is missing or does not fit the others.
    pub fn load(folder: &Path) -> Result<Case> {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).with_context(|| {
                format!(
                    "reading {}: a golden case is a folder with case.json, weights.safetensors, \
                     batches.safetensors and expected.safetensors",
                    path.display()
                )
            })
        };
        let context = || format!("reading {}/case.json", folder.display());
        let description: Description =
            serde_json::from_slice(&read("case.json")?).with_context(context)?;
        let (model, train) = (&description.model, &description.train);
        model.validate().with_context(context)?;
        if train.updates == 0 || train.update_freq == 0 {
            return Err(CaseError::NoUpdates).with_context(context);
        }
        let bytes = read("weights.safetensors")?;
        let file = "weights.safetensors";
        let weights =
            SafeTensors::deserialize(&bytes).with_context(|| format!("reading {file}"))?;
        let weights = parameters(&description.model)
            .into_iter()
            .map(|parameter| {
                let view = tensor(&weights, file, &parameter.name)?;
                if view.shape() != parameter.shape {
                    return Err(CaseError::Shape {
                        file: file.to_owned(),
                        name: parameter.name,
                        found: view.shape().to_vec(),
                        expected: parameter.shape,
                    }
                    .into());
                }
                let values = floats(&view, file, &parameter.name)?;
                Ok(NamedArray {
                    values: values.into_iter().map(|x| x as f32).collect(),
                    name: parameter.name,
                    shape: parameter.shape,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(Case {
            name: description.name,
            model: description.model,
            train: description.train,
            weights,
            batches: read("batches.safetensors")?,
            expected: read("expected.safetensors")?,
            folder: folder.to_owned(),
        })
    }

    /// An expected quantity.
    ///
    /// # Errors
    /// Where the case has no such quantity.
    pub fn expected(&self, name: &str) -> Result<Vec<f64>> {
        let file = self
            .folder
            .join("expected.safetensors")
            .display()
            .to_string();
        let tensors =
            SafeTensors::deserialize(&self.expected).with_context(|| format!("reading {file}"))?;
        Ok(floats(&tensor(&tensors, &file, name)?, &file, name)?)
    }

    /// Micro-batch `index`.
    ///
    /// # Errors
    /// Where the case has too few.
    pub fn batch(&self, index: usize) -> Result<Batch> {
        let file = self
            .folder
            .join("batches.safetensors")
            .display()
            .to_string();
        let tensors =
            SafeTensors::deserialize(&self.batches).with_context(|| format!("reading {file}"))?;
        let shape = |part: &str| -> Result<Vec<usize>> {
            let name = format!("{index}.{part}");
            Ok(tensor(&tensors, &file, &name)?.shape().to_vec())
        };
        let (ids, targets) = (shape("input_ids")?, shape("targets")?);
        let (&[rows, width], &[_, predicted]) = (&ids[..], &targets[..]) else {
            anyhow::bail!("{file}: micro-batch {index} is not made of matrices");
        };
        let copies = self.model.objective.copies();
        let length = predicted
            .checked_mul(copies)
            .and_then(|copies| width.checked_sub(copies))
            .filter(|&length| rows > 0 && predicted > 0 && length > predicted)
            .with_context(|| {
                format!(
                    "{file}: micro-batch {index} predicts {predicted} of {width} columns of {rows} rows: \
                     expected L + {copies} P columns, P at least 1 and L above P"
                )
            })?;
        let read = |part: &str, columns: usize| -> Result<Vec<i64>> {
            let name = format!("{index}.{part}");
            let view = tensor(&tensors, &file, &name)?;
            if view.shape() != [rows, columns] {
                return Err(CaseError::Shape {
                    file: file.clone(),
                    name,
                    found: view.shape().to_vec(),
                    expected: vec![rows, columns],
                }
                .into());
            }
            Ok(integers(&view, &file, &name)?)
        };
        let input_ids = read("input_ids", width)?;
        let targets = read("targets", predicted)?;
        let attention_mask = read("attention_mask", width)?;
        let tokens = attention_mask
            .chunks(width)
            .map(|row| row[..length].iter().filter(|&&m| m != 0).count())
            .sum();
        let pad = self.model.pad_token_id;
        Ok(Batch {
            rows,
            length,
            predicted,
            copies,
            positions: read("positions", width)?,
            tokens,
            predicted_tokens: targets.iter().filter(|&&t| t != pad).count(),
            own_shares: targets.len(),
            input_ids,
            targets,
            attention_mask,
        })
    }
}

fn tensor<'a>(
    tensors: &SafeTensors<'a>,
    file: &str,
    name: &str,
) -> Result<TensorView<'a>, CaseError> {
    tensors.tensor(name).map_err(|_| CaseError::Missing {
        file: file.to_owned(),
        name: name.to_owned(),
    })
}

/// Little-endian elements of `N` bytes.
fn elements<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    let (chunks, _) = bytes.as_chunks::<N>();
    chunks.iter().map(|chunk| convert(*chunk)).collect()
}

fn floats(view: &TensorView, file: &str, name: &str) -> Result<Vec<f64>, CaseError> {
    match view.dtype() {
        Dtype::F32 => Ok(elements(view.data(), |b| f64::from(f32::from_le_bytes(b)))),
        Dtype::F64 => Ok(elements(view.data(), f64::from_le_bytes)),
        found => Err(CaseError::DType {
            file: file.to_owned(),
            name: name.to_owned(),
            found,
            expected: "F32 or F64",
        }),
    }
}

fn integers(view: &TensorView, file: &str, name: &str) -> Result<Vec<i64>, CaseError> {
    match view.dtype() {
        Dtype::I64 => Ok(elements(view.data(), i64::from_le_bytes)),
        found => Err(CaseError::DType {
            file: file.to_owned(),
            name: name.to_owned(),
            found,
            expected: "I64",
        }),
    }
}
