//! The files by which sentence-transformers takes a folder for a model of sentence embeddings.

use super::ConvertError;
use super::hf_folder::write_json;
use mpnet_graphs::model::config::ModelConfig;
use serde_json::json;
use std::fs;
use std::path::Path;

/// What [`write_modules`] writes, beside the model's own files.
pub const MODULE_FILES: [&str; 5] = [
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling",
    "2_Normalize",
];

/// Describes `model` with the mean over its tokens, of length 1 where `normalize`, in `folder`.
///
/// # Errors
/// Where a file cannot be written.
pub fn write_modules(
    folder: &Path,
    model: &ModelConfig,
    normalize: bool,
) -> Result<(), ConvertError> {
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
        fs::create_dir_all(&empty).map_err(ConvertError::io("create", &empty))?;
    }
    write_json(folder, "modules.json", &modules)?;
    write_json(
        folder,
        "sentence_bert_config.json",
        &json!({ "max_seq_length": model.max_positions, "do_lower_case": false }),
    )?;
    write_json(
        folder,
        "1_Pooling/config.json",
        &json!({
            "word_embedding_dimension": model.encoder_embed_dim,
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
