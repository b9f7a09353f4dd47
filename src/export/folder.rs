//! What stands beside an exported model, for the programs that load the folder.

use super::{ExportError, MODEL_FILE};
use crate::convert::Source;
use crate::convert::hf_folder::limit_length;
use crate::data::tokenizer::{TOKENIZER_FILE, copy_tokenizer};
use mpnet_graphs::model::encoder::Head;
use serde_json::json;
use std::fs;
use std::path::Path;

/// Only an empty folder or an earlier export is replaced.
pub fn refuse_strangers(target: &Path) -> Result<(), ExportError> {
    let occupied = || ExportError::Occupied {
        path: target.to_owned(),
    };
    if !target.exists() || target.join(MODEL_FILE).is_file() {
        return Ok(());
    }
    if !target.is_dir() {
        return Err(occupied());
    }
    let mut entries = fs::read_dir(target).map_err(ExportError::io("read", target))?;
    match entries.next() {
        None => Ok(()),
        Some(_) => Err(occupied()),
    }
}

/// Writes `value` as the file `name` below `folder`.
pub fn write_json(
    folder: &Path,
    name: &str,
    value: &impl serde::Serialize,
) -> Result<(), ExportError> {
    let path = folder.join(name);
    let io = ExportError::io("write", &path);
    let text = serde_json::to_string_pretty(value).map_err(|e| io(e.into()))?;
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(&io)?;
    }
    fs::write(&path, text + "\n").map_err(&io)
}

/// Writes the tokenizer, where there is one.
pub fn write_tokenizer(source: &Source, folder: &Path) -> Result<(), ExportError> {
    if let Some(tokenizer) = &source.tokenizer {
        copy_tokenizer(&tokenizer.join(TOKENIZER_FILE), folder)
            .map_err(crate::convert::ConvertError::from)?;
        limit_length(folder, source.model.max_positions)?;
    }
    Ok(())
}

/// Writes the modules of sentence-transformers, where `head` is one of them.
pub fn write_modules(source: &Source, folder: &Path, head: Head) -> Result<(), ExportError> {
    let longest = source.model.max_positions;
    let Head::Sentence { normalize } = head else {
        return Ok(());
    };
    let module = |index: usize, path: &str, name: &str| {
        json!({
            "idx": index,
            "name": index.to_string(),
            "path": path,
            "type": format!("sentence_transformers.models.{name}"),
        })
    };
    let mut modules = vec![
        module(0, "", "Transformer"),
        module(1, "1_Pooling", "Pooling"),
    ];
    if normalize {
        modules.push(module(2, "2_Normalize", "Normalize"));
        let empty = folder.join("2_Normalize");
        fs::create_dir_all(&empty).map_err(ExportError::io("create", &empty))?;
    }
    write_json(folder, "modules.json", &modules)?;
    write_json(
        folder,
        "sentence_bert_config.json",
        &json!({ "max_seq_length": longest, "do_lower_case": false }),
    )?;
    write_json(
        folder,
        "1_Pooling/config.json",
        &json!({
            "word_embedding_dimension": source.model.encoder_embed_dim,
            "pooling_mode_cls_token": false,
            "pooling_mode_mean_tokens": true,
            "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false,
        }),
    )?;
    write_json(
        folder,
        "config_sentence_transformers.json",
        &json!({ "prompts": {}, "default_prompt_name": null, "similarity_fn_name": "cosine" }),
    )
}
