//! A model in any format that can be read, its parameters under native names and read one at a time.

use super::ConvertError;
use super::annotated;
use super::hf_config::{CONFIG_FILE, FoundConfig};
use super::plan::{Stored, plan};
use super::pytorch;
use super::safetensors_file;
use super::tensors::Tensor;
use super::weight_map::{LM_HEAD, Layout, WORDS, in_encoder, of_encoder, stored_name};
use crate::checkpoint::{self, Pointer};
use crate::data::Tokenizer;
use crate::data::hub::{Hub, HubSettings, WEIGHT_FILES, index_of, model_folder};
use crate::data::tokenizer::{TOKENIZER_FILE, same_tokenizer};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_runtime::engine::{NamedArray, OptimizerState};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Endings of files, which no name of the Hub is taken for.
const FILE_KINDS: [&str; 5] = ["pt", "pth", "bin", "safetensors", "onnx"];

/// An opened model.
#[derive(Debug)]
pub struct Source {
    /// The file or folder that was read.
    pub path: PathBuf,
    pub layout: Layout,
    pub model: ModelConfig,
    /// In the order of the model's parameters.
    pub parameters: Vec<Stored>,
    /// The definition (`tokenizer.json`) of its tokenizer.
    pub tokenizer: Option<PathBuf>,
    /// Updates made, where that is known.
    pub step: u64,
    /// Lowest validation loss so far, in bits per predicted token.
    pub best_loss: Option<f64>,
    /// The run's settings, where it was one of this program.
    pub run: serde_json::Value,
    /// What the user should know of the reading.
    pub notes: Vec<String>,
    /// Adam's moments, in the order of the parameters.
    pub moments: Option<[Vec<Tensor>; 2]>,
}

/// How to read.
#[derive(Debug, Clone, Default)]
pub struct SourceOptions {
    /// The tokenizer's folder or definition, where the model's own is not to be used.
    pub tokenizer: Option<PathBuf>,
    /// Refuse a tokenizer that makes other tokens than the model's own; else that is noted.
    pub only_own_tokenizer: bool,
    /// Read no moments.
    pub no_optimizer: bool,
}

impl Source {
    /// Opens what is at `path`: a native checkpoint or a folder of some, a HuggingFace folder, or a
    /// PyTorch file of annotated-mpnet or fairseq; where nothing is there, the model of that name on
    /// the HuggingFace Hub. A `best_checkpoint.pt` that does not exist stands for the best native
    /// checkpoint of its folder.
    ///
    /// # Errors
    /// Where nothing is there, or it is damaged, refused or of another model.
    pub fn open(path: &Path, options: &SourceOptions) -> Result<Source, ConvertError> {
        if path.is_file() {
            annotated::open(path, options)
        } else if path.join(CONFIG_FILE).is_file() {
            hf_folder(path, options)
        } else if path.is_dir() || path.file_name().is_some_and(|n| n == "best_checkpoint.pt") {
            native(path, options)
        } else {
            hf_folder(&from_hub(path)?, options)
        }
    }

    /// One parameter, whole.
    ///
    /// # Errors
    /// Where its file cannot be read.
    pub fn read(&self, stored: &Stored) -> Result<NamedArray, ConvertError> {
        Ok(NamedArray {
            name: stored.name.clone(),
            shape: stored.shape.clone(),
            values: stored.read(0..stored.shape.first().copied().unwrap_or(1))?,
        })
    }

    /// All parameters.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn read_all(&self) -> Result<Vec<NamedArray>, ConvertError> {
        self.parameters.iter().map(|p| self.read(p)).collect()
    }

    /// Adam's state, where there is one.
    ///
    /// # Errors
    /// Where a file cannot be read.
    pub fn optimizer(&self) -> Result<Option<OptimizerState>, ConvertError> {
        let Some([first, second]) = &self.moments else {
            return Ok(None);
        };
        let arrays = |tensors: &[Tensor]| -> Result<Vec<NamedArray>, ConvertError> {
            self.parameters
                .iter()
                .zip(tensors)
                .map(|(parameter, tensor)| {
                    Ok(NamedArray {
                        name: parameter.name.clone(),
                        shape: parameter.shape.clone(),
                        values: tensor.read(0..tensor.rows())?,
                    })
                })
                .collect()
        };
        Ok(Some(OptimizerState {
            step: i64::try_from(self.step).unwrap_or(i64::MAX),
            first_moments: arrays(first)?,
            second_moments: arrays(second)?,
            loss_scaling: None,
        }))
    }
}

/// The tokenizer that is asked for, else the one in the first folder of `own` that has one, if any. One
/// that is not the model's own is refused or noted, as `options` say.
pub(super) fn tokenizer(
    options: &SourceOptions,
    own: &[PathBuf],
    notes: &mut Vec<String>,
) -> Result<Option<Tokenizer>, ConvertError> {
    let own = own.iter().map(|folder| folder.join(TOKENIZER_FILE));
    let own = own.into_iter().find(|definition| definition.is_file());
    let load = |path: &Path| Tokenizer::load(&path.to_string_lossy());
    let Some(given) = &options.tokenizer else {
        return Ok(own.map(|own| load(&own)).transpose()?);
    };
    let given = load(given)?;
    if let Some(own) = own {
        match same_tokenizer(&own, given.path()) {
            Ok(true) => {}
            Ok(false) if options.only_own_tokenizer => {
                return Err(ConvertError::OtherTokenizer {
                    given: given.path().to_owned(),
                    own,
                });
            }
            Ok(false) => notes.push(format!(
                "the tokenizer {} is another than the model's own, {}: its ids stand for other words",
                given.path().display(),
                own.display()
            )),
            Err(error) => notes.push(format!("the model's own tokenizer cannot be read: {error}")),
        }
    }
    Ok(Some(given))
}

/// Puts a tokenizer's ids and size into `model`.
pub(super) fn apply_tokenizer(
    path: &Path,
    model: &mut ModelConfig,
    tokenizer: &Tokenizer,
) -> Result<(), ConvertError> {
    if tokenizer.vocab_size() > model.padded_vocab_size {
        return Err(ConvertError::model(
            path,
            format!(
                "its embeddings have {} rows, fewer than the {} entries of the tokenizer {}",
                model.padded_vocab_size,
                tokenizer.vocab_size(),
                tokenizer.path().display()
            ),
        ));
    }
    let vocabulary = tokenizer.vocabulary();
    model.vocab_size = vocabulary.size;
    model.pad_token_id = vocabulary.pad;
    model.bos_token_id = vocabulary.bos;
    model.eos_token_id = vocabulary.eos;
    model.unk_token_id = vocabulary.unk;
    model.mask_token_id = vocabulary.mask;
    Ok(())
}

fn native(path: &Path, options: &SourceOptions) -> Result<Source, ConvertError> {
    let folder = checkpoint::resolve(path, Pointer::Best)?;
    let state = checkpoint::read_checked_state(&folder)?;
    let file = folder.join(checkpoint::MODEL_FILE);
    let tensors = safetensors_file::tensors(&file)?;
    let (parameters, mut notes) = plan(&file, Layout::Native, &state.model, tensors)?;
    let own = folder.join(checkpoint::TOKENIZER_FOLDER);
    let tokenizer = tokenizer(options, &[own], &mut notes)?;
    let mut model = state.model;
    if let (Some(_), Some(given)) = (&options.tokenizer, &tokenizer) {
        apply_tokenizer(&folder, &mut model, given)?;
    }
    Ok(Source {
        path: folder,
        layout: Layout::Native,
        model,
        parameters,
        tokenizer: tokenizer.map(|t| t.path().to_owned()),
        step: state.step,
        best_loss: state.best_loss,
        run: state.config,
        notes,
        moments: None,
    })
}

/// The folder, in the Hub's cache, of the model whose name `path` is.
fn from_hub(path: &Path) -> Result<PathBuf, ConvertError> {
    let not_found = |hub| ConvertError::NotFound {
        path: path.to_owned(),
        hub,
    };
    // A file that is not there is no name, and so is what has no owner.
    let name = path.to_str().filter(|name| {
        let file = path.extension().is_some_and(|kind| {
            FILE_KINDS.contains(&kind.to_string_lossy().to_ascii_lowercase().as_str())
        });
        name.matches('/').count() == 1 && !file
    });
    let hub = || Hub::new(HubSettings::from_env());
    match name.map(|name| model_folder(&hub(), name, "main")) {
        Some(Ok(Some(folder))) => Ok(folder),
        Some(Ok(None)) | None => Err(not_found(None)),
        Some(Err(error)) => Err(not_found(Some(error))),
    }
}

fn hf_folder(folder: &Path, options: &SourceOptions) -> Result<Source, ConvertError> {
    let found = FoundConfig::read(folder)?;
    let tensors = hf_tensors(folder)?;
    let words = stored_name(Layout::HuggingFace, WORDS).and_then(|name| tensors.get(&name));
    let rows = words.map_or(0, Tensor::rows);
    let mut notes = Vec::new();
    let mut model = found.model(folder, rows, &mut notes)?;
    let tokenizer = tokenizer(options, &[folder.to_owned()], &mut notes)?;
    match &tokenizer {
        Some(tokenizer) => apply_tokenizer(folder, &mut model, tokenizer)?,
        None => notes.push(format!(
            "there is no tokenizer.json: <mask> is taken for token {}; --tokenizer names a folder with one",
            model.mask_token_id
        )),
    }
    let (parameters, further) = plan(folder, Layout::HuggingFace, &model, tensors)?;
    notes.extend(further);
    Ok(Source {
        path: folder.to_owned(),
        layout: Layout::HuggingFace,
        model,
        parameters,
        tokenizer: tokenizer.map(|t| t.path().to_owned()),
        step: 0,
        best_loss: None,
        run: serde_json::Value::Null,
        notes,
        moments: None,
    })
}

/// The tensors of a HuggingFace folder, of whichever files it has, under the names of
/// `MPNetForMaskedLM`.
fn hf_tensors(folder: &Path) -> Result<BTreeMap<String, Tensor>, ConvertError> {
    type Reader = fn(&Path) -> Result<BTreeMap<String, Tensor>, ConvertError>;
    // In the order of WEIGHT_FILES.
    let readers: [Reader; 2] = [safetensors_file::tensors, bin_tensors];
    for (name, read) in WEIGHT_FILES.into_iter().zip(readers) {
        let (file, index) = (folder.join(name), folder.join(index_of(name)));
        let tensors = if file.is_file() {
            read(&file)?
        } else if index.is_file() {
            let mut tensors = BTreeMap::new();
            for shard in shards(&index)? {
                tensors.extend(read(&folder.join(shard))?);
            }
            tensors
        } else {
            continue;
        };
        return Ok(as_masked_lm(tensors));
    }
    let names = WEIGHT_FILES.join(" nor ");
    Err(ConvertError::model(
        folder,
        format!("it has neither {names}, whole or in shards"),
    ))
}

fn bin_tensors(path: &Path) -> Result<BTreeMap<String, Tensor>, ConvertError> {
    let file = pytorch::open(path)?;
    let entries = file.root().entries().unwrap_or_default();
    let tensors = entries
        .into_iter()
        .filter_map(|(name, entry)| Some((name.to_owned(), entry.tensor()?)));
    Ok(tensors.collect())
}

/// The files that an index of shards names; none may lie elsewhere.
fn shards(index: &Path) -> Result<Vec<String>, ConvertError> {
    let text = std::fs::read(index).map_err(ConvertError::io("read", index))?;
    let json: serde_json::Value =
        serde_json::from_slice(&text).map_err(|e| ConvertError::damaged(index, e.to_string()))?;
    let map = json["weight_map"].as_object();
    let names = map.map(|m| {
        m.values()
            .map(|v| v.as_str().unwrap_or_default().to_owned())
    });
    let mut names: Vec<String> = names.into_iter().flatten().collect();
    names.sort();
    names.dedup();
    let strange = |n: &String| Path::new(n).file_name().is_none_or(|f| f != n.as_str());
    if names.is_empty() || names.iter().any(strange) {
        return Err(ConvertError::damaged(
            index,
            "its weight_map names no files, or files in other folders",
        ));
    }
    Ok(names)
}

/// The tensors of an encoder that was saved alone under the names of `MPNetForMaskedLM`, others as they
/// are.
fn as_masked_lm(tensors: BTreeMap<String, Tensor>) -> BTreeMap<String, Tensor> {
    let words = stored_name(Layout::HuggingFace, WORDS).unwrap_or_default();
    if !in_encoder(&words).is_some_and(|alone| tensors.contains_key(alone)) {
        return tensors;
    }
    tensors
        .into_iter()
        .map(|(name, tensor)| match name.starts_with(LM_HEAD) {
            true => (name, tensor),
            false => (of_encoder(&name), tensor),
        })
        .collect()
}
