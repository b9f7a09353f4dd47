//! Folders of transformers, and of sentence-transformers, whose encoder is one.

use super::super::hf_config::FoundConfig;
use super::super::json::read_json;
use super::super::plan::plan;
use super::super::tensors::Tensor;
use super::super::weight_map::{
    LM_HEAD, Layout, WORDS, in_encoder, of_encoder, stored_name, stored_names, unwrapped,
};
use super::super::{ConvertError, pytorch, safetensors_file, sentence_transformers};
use super::{Source, SourceOptions, apply_tokenizer, tokenizer};
use crate::data::hub::{WEIGHT_FILES, index_of};
use std::collections::BTreeMap;
use std::path::Path;

/// Files of weights that other programs and formats have, and what they are.
const OTHER_WEIGHTS: [(&str, &str); 4] = [
    ("tf_model.h5", "TensorFlow's"),
    ("flax_model.msgpack", "Flax's"),
    ("model.onnx", "ONNX's"),
    ("onnx", "ONNX's"),
];

/// Opens the model whose encoder is in `folder`; `whole` is that folder or the one of
/// sentence-transformers that it belongs to.
///
/// # Errors
/// Where it is damaged or of another model.
pub(super) fn open(
    whole: &Path,
    folder: &Path,
    options: &SourceOptions,
) -> Result<Source, ConvertError> {
    let found = FoundConfig::read(folder)?;
    let tensors = as_masked_lm(folder, weights(folder)?)?;
    let words = stored_names(Layout::HuggingFace, WORDS);
    let Some(rows) = words
        .iter()
        .find_map(|name| Some(tensors.get(name)?.rows()))
    else {
        return Err(ConvertError::Missing {
            path: folder.to_owned(),
            names: stored_name(Layout::HuggingFace, WORDS)
                .into_iter()
                .collect(),
        });
    };
    let mut notes = Vec::new();
    let mut model = found.model(folder, rows, &mut notes)?;
    let own = [folder.to_owned(), whole.to_owned()];
    let tokenizer = tokenizer(options, &own, &mut notes)?;
    match &tokenizer {
        Some(tokenizer) => apply_tokenizer(folder, &mut model, tokenizer)?,
        None => notes.push(format!(
            "there is no tokenizer.json: <mask> is taken for token {}; --tokenizer names a folder with one",
            model.mask_token_id
        )),
    }
    let mut plan = plan(folder, Layout::HuggingFace, &model, tensors)?;
    notes.append(&mut plan.notes);
    plan.notes = notes;
    let sentence = sentence_transformers::read(whole, &model)
        .map_err(|refusal| refusal.to_string())
        .transpose();
    let mut source = Source {
        tokenizer: tokenizer.map(|t| t.path().to_owned()),
        sentence,
        ..Source::new(whole, Layout::HuggingFace, model, plan)
    };
    if let Some(untied) = &mut source.untied {
        untied.said_to_be_tied = found.is_tied();
    }
    Ok(source)
}

/// The tensors of whichever files of weights a folder has.
///
/// # Errors
/// Where it has none, or one is damaged.
pub fn weights(folder: &Path) -> Result<BTreeMap<String, Tensor>, ConvertError> {
    type Reader = fn(&Path) -> Result<BTreeMap<String, Tensor>, ConvertError>;
    // In the order of WEIGHT_FILES.
    let readers: [Reader; 2] = [safetensors_file::tensors, bin_tensors];
    for (name, read) in WEIGHT_FILES.into_iter().zip(readers) {
        let (file, index) = (folder.join(name), folder.join(index_of(name)));
        if file.is_file() {
            return read(&file);
        }
        if index.is_file() {
            let mut tensors = BTreeMap::new();
            for shard in shards(&index)? {
                tensors.extend(read(&folder.join(shard))?);
            }
            return Ok(tensors);
        }
    }
    let names = WEIGHT_FILES.join(" nor ");
    let others = OTHER_WEIGHTS
        .iter()
        .find(|(name, _)| folder.join(name).exists());
    let others = match others {
        Some((name, whose)) => format!(
            "; {name} is {whose}, which is not read: save the model from PyTorch with save_pretrained"
        ),
        None => String::new(),
    };
    Err(ConvertError::model(
        folder,
        format!("it has neither {names}, whole or in shards{others}"),
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
    let json = read_json(index)?.unwrap_or_default();
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

/// The tensors of `folder` under the names of `MPNetForMaskedLM`: without what wrappers have put into
/// them, and those of an encoder that was saved alone with its name before them.
fn as_masked_lm(
    folder: &Path,
    tensors: BTreeMap<String, Tensor>,
) -> Result<BTreeMap<String, Tensor>, ConvertError> {
    let given: Vec<&str> = tensors.keys().map(String::as_str).collect();
    let mut names = unwrapped(Layout::HuggingFace, &given);
    let words = stored_name(Layout::HuggingFace, WORDS).unwrap_or_default();
    if in_encoder(&words).is_some_and(|alone| names.iter().any(|name| name == alone)) {
        for name in names.iter_mut().filter(|name| !name.starts_with(LM_HEAD)) {
            *name = of_encoder(name);
        }
    }
    let mut renamed = BTreeMap::new();
    for (name, tensor) in names.into_iter().zip(tensors.into_values()) {
        if renamed.contains_key(&name) {
            return Err(ConvertError::damaged(
                folder,
                format!("it has two tensors for '{name}', one of them of a wrapped module"),
            ));
        }
        renamed.insert(name, tensor);
    }
    Ok(renamed)
}
