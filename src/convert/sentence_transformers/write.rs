//! The files by which sentence-transformers takes a folder for a model of sentence embeddings.

use super::super::ConvertError;
use super::super::json::write_json;
use super::read::{MODULES_FILE, SETTINGS_FILE, TRANSFORMER_FILES};
use super::{DenseModule, POOLINGS, SentenceModel, Step, name};
use crate::arrays::{Planned, stream_safetensors};
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::pooling::Pooling;
use safetensors::Dtype;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// Describes `sentence`, which stands on the encoder `model`, in `folder`.
///
/// # Errors
/// Where a file cannot be read or written.
pub fn write_modules(
    folder: &Path,
    model: &ModelConfig,
    sentence: &SentenceModel,
) -> Result<(), ConvertError> {
    let mut modules = Vec::new();
    let mut add = |class: &str| {
        let index = modules.len();
        let path = if index == 0 {
            String::new()
        } else {
            format!("{index}_{class}")
        };
        modules.push(json!({
            "idx": index,
            "name": index.to_string(),
            "path": path,
            "type": format!("sentence_transformers.models.{class}"),
        }));
        path
    };
    add("Transformer");
    let pooling = add("Pooling");
    write_json(
        folder,
        &format!("{pooling}/config.json"),
        &pooling_config(model, sentence),
    )?;
    for step in &sentence.steps {
        match step {
            Step::Normalize => {
                let empty = folder.join(add("Normalize"));
                fs::create_dir_all(&empty).map_err(ConvertError::io("create", &empty))?;
            }
            Step::Dense(dense) => write_dense(folder, &add("Dense"), dense)?,
        }
    }
    write_json(folder, MODULES_FILE, &modules)?;
    write_json(
        folder,
        TRANSFORMER_FILES[0],
        &json!({
            "max_seq_length": sentence.max_seq_length,
            "do_lower_case": sentence.do_lower_case,
        }),
    )?;
    let mut settings = sentence.settings.clone();
    for (key, usual) in [
        ("prompts", json!({})),
        ("default_prompt_name", Value::Null),
        ("similarity_fn_name", json!("cosine")),
    ] {
        if settings.get(key).is_none_or(Value::is_null) {
            settings.insert(key.to_owned(), usual);
        }
    }
    write_json(folder, SETTINGS_FILE, &settings)
}

/// The configuration of the pooling in the words of the releases before 6, where they have words for it:
/// they join vectors in one order alone.
fn pooling_config(model: &ModelConfig, sentence: &SentenceModel) -> Value {
    let mut config = Map::new();
    config.insert(
        "word_embedding_dimension".to_owned(),
        model.encoder_embed_dim.into(),
    );
    if is_in_order(&sentence.pooling) {
        for (pooling, _, flag) in POOLINGS {
            let used = sentence.pooling.contains(&pooling);
            config.insert(flag.to_owned(), used.into());
        }
    } else {
        let names: Vec<&str> = sentence.pooling.iter().map(|mode| name(*mode)).collect();
        config.insert("pooling_mode".to_owned(), names.into());
    }
    config.insert("include_prompt".to_owned(), sentence.include_prompt.into());
    Value::Object(config)
}

/// Whether releases before 6 join the vectors in this order.
fn is_in_order(ways: &[Pooling]) -> bool {
    let place = |way: &Pooling| POOLINGS.iter().position(|(known, ..)| known == way);
    ways.is_sorted_by(|a, b| place(a) < place(b))
}

/// Writes a Dense module as the folder `name` of `folder`.
fn write_dense(folder: &Path, name: &str, dense: &DenseModule) -> Result<(), ConvertError> {
    write_json(
        folder,
        &format!("{name}/config.json"),
        &json!({
            "in_features": dense.weight.shape[1],
            "out_features": dense.weight.rows(),
            "bias": dense.bias.is_some(),
            "activation_function": dense.activation,
        }),
    )?;
    let mut tensors = vec![("linear.weight", &dense.weight)];
    tensors.extend(dense.bias.as_ref().map(|bias| ("linear.bias", bias)));
    tensors.sort_by_key(|(name, _)| *name);
    let planned: Vec<Planned> = tensors
        .iter()
        .map(|(name, tensor)| Planned {
            name: (*name).to_owned(),
            dtype: Dtype::F32,
            shape: tensor.shape.clone(),
        })
        .collect();
    let path = folder.join(name).join("model.safetensors");
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    stream_safetensors(&path, &planned, metadata, |index| {
        let (_, tensor) = tensors[index];
        let values = tensor.read(0..tensor.rows())?;
        Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect())
    })
    .map_err(|failure: super::super::StreamFailure| failure.of(&path))
}
