//! The modules of a sentence-transformers folder, of every release.

use super::super::ConvertError;
use super::super::hf_config::CONFIG_FILE;
use super::super::json::read_json;
use super::super::source::weights;
use super::super::tensors::Tensor;
use super::{DenseModule, POOLINGS, SentenceModel, Step, refuse};
use crate::data::tokenizer::CONFIG_FILE as TOKENIZER_CONFIG_FILE;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::pooling::Pooling;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The file that makes a folder one of sentence-transformers.
pub const MODULES_FILE: &str = "modules.json";
/// Prompts and similarity.
pub(super) const SETTINGS_FILE: &str = "config_sentence_transformers.json";
/// Where the encoder's settings are; the later names are of old releases.
pub(super) const TRANSFORMER_FILES: [&str; 3] = [
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
];
/// What the modules hand on to each other.
const EMBEDDING: &str = "sentence_embedding";
/// The activation of a Dense module that names none.
const DEFAULT_ACTIVATION: &str = "torch.nn.modules.activation.Tanh";
/// Settings of the encoder that change no embedding, or are read elsewhere.
const KNOWN_SETTINGS: [&str; 6] = [
    "max_seq_length",
    "do_lower_case",
    "transformer_task",
    "modality_config",
    "module_output_name",
    "unpad_inputs",
];

/// A line of `modules.json`.
struct Module {
    /// The class, without what it is in.
    class: String,
    folder: PathBuf,
}

/// The modules that `folder` names, `None` where it is no folder of sentence-transformers.
fn modules(folder: &Path) -> Result<Option<Vec<Module>>, ConvertError> {
    let path = folder.join(MODULES_FILE);
    let Some(json) = read_json(&path)? else {
        return Ok(None);
    };
    let damaged = || ConvertError::damaged(&path, "it is no list of modules with path and type");
    let mut modules = Vec::new();
    for module in json.as_array().ok_or_else(damaged)? {
        let text = |key: &str| module[key].as_str().ok_or_else(damaged);
        let (place, class) = (Path::new(text("path")?), text("type")?);
        let inside = place.components().all(|part| match part {
            std::path::Component::Normal(_) | std::path::Component::CurDir => true,
            std::path::Component::Prefix(_)
            | std::path::Component::RootDir
            | std::path::Component::ParentDir => false,
        });
        if !inside {
            return Err(damaged());
        }
        // Code of a model's own may have a class of any name.
        let own = !class.starts_with("sentence_transformers.");
        let class = match class.rsplit('.').next() {
            Some(name) if !own => name,
            Some(_) | None => class,
        };
        modules.push(Module {
            class: class.to_owned(),
            folder: folder.join(place),
        });
    }
    Ok(Some(modules))
}

/// The folder of the encoder in the sentence-transformers folder `folder`; `None` where it is none, or
/// has no encoder.
///
/// # Errors
/// Where `modules.json` cannot be read.
pub fn encoder_folder(folder: &Path) -> Result<Option<PathBuf>, ConvertError> {
    let modules = modules(folder)?.unwrap_or_default();
    let encoder = |m: &Module| ["Transformer", "MLMTransformer"].contains(&m.class.as_str());
    Ok(modules.into_iter().find(encoder).map(|m| m.folder))
}

/// Reads what stands on the encoder `model` in the sentence-transformers folder `folder`; `None` where it
/// is none.
///
/// # Errors
/// Where it is damaged, is a model for another task, or has what cannot be kept: the message names it.
pub fn read(folder: &Path, model: &ModelConfig) -> Result<Option<SentenceModel>, ConvertError> {
    let Some(modules) = modules(folder)? else {
        return match task_of_head(folder)? {
            Some(head) => Err(refuse(folder, head)),
            None => Ok(None),
        };
    };
    let settings = settings(folder)?;
    let mut modules = modules.into_iter();
    let encoder = modules.next().filter(|m| m.class == "Transformer");
    let encoder = encoder.ok_or_else(|| refuse(folder, "its first module is no Transformer"))?;
    let pooling = modules.next();
    let pooling = match pooling {
        Some(module) if module.class == "Pooling" => module,
        Some(module) => return Err(not_kept(folder, &module.class)),
        None => return Err(refuse(folder, "it has no module that pools")),
    };
    let (ways, include_prompt) = read_pooling(&pooling.folder, model)?;
    let mut width = ways.len() * model.encoder_embed_dim;
    let mut steps = Vec::new();
    let mut left_out = Vec::new();
    for module in modules {
        match module.class.as_str() {
            "Normalize" => {
                embedding_to_embedding(&module, &config_of(&module.folder)?)?;
                steps.push(Step::Normalize);
            }
            "Dense" => {
                let dense = read_dense(&module, width)?;
                width = dense.weight.rows();
                steps.push(Step::Dense(dense));
            }
            "Dropout" => left_out.push("Dropout, which does nothing when a model is used".into()),
            other => return Err(not_kept(folder, other)),
        }
    }
    let (max_seq_length, do_lower_case) = read_encoder(&encoder.folder, model, &mut left_out)?;
    Ok(Some(SentenceModel {
        max_seq_length,
        do_lower_case,
        pooling: ways,
        include_prompt,
        steps,
        settings,
        left_out,
    }))
}

fn not_kept(folder: &Path, class: &str) -> ConvertError {
    refuse(
        folder,
        format!(
            "its module {class} is none that can be kept (Transformer, Pooling, Dense, Normalize and Dropout \
             can)"
        ),
    )
}

/// The configuration of a module, empty where it has none.
fn config_of(folder: &Path) -> Result<Map<String, Value>, ConvertError> {
    let path = folder.join("config.json");
    match read_json(&path)? {
        Some(Value::Object(config)) => Ok(config),
        None => Ok(Map::new()),
        Some(_) => Err(ConvertError::damaged(&path, "it is no JSON object")),
    }
}

/// Refuses a module that reads or writes anything but the text's embedding.
fn embedding_to_embedding(
    module: &Module,
    config: &Map<String, Value>,
) -> Result<(), ConvertError> {
    for key in ["module_input_name", "module_output_name"] {
        match config.get(key).map(|name| name.as_str()) {
            None | Some(Some(EMBEDDING)) => {}
            Some(_) if config[key].is_null() => {}
            Some(_) => {
                return Err(refuse(
                    &module.folder,
                    format!(
                        "its module {} has {key} {}, only '{EMBEDDING}' can be kept",
                        module.class, config[key]
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// The ways of pooling, and whether prompts are pooled.
fn read_pooling(folder: &Path, model: &ModelConfig) -> Result<(Vec<Pooling>, bool), ConvertError> {
    let config = config_of(folder)?;
    let mut ways = Vec::new();
    let named = |name: &Value| {
        let name = name.as_str().unwrap_or_default().to_ascii_lowercase();
        let known = POOLINGS.iter().find(|(_, known, _)| *known == name);
        known.map(|(pooling, ..)| *pooling).ok_or_else(|| {
            refuse(
                folder,
                format!("its pooling_mode '{name}' is none that is known"),
            )
        })
    };
    match config.get("pooling_mode") {
        Some(Value::Array(names)) => {
            for name in names {
                ways.push(named(name)?);
            }
        }
        Some(Value::Null) | None => {
            for (pooling, _, flag) in POOLINGS {
                if config.get(flag).and_then(Value::as_bool) == Some(true) {
                    ways.push(pooling);
                }
            }
        }
        Some(name) => ways.push(named(name)?),
    }
    if ways.is_empty() {
        ways.push(Pooling::Mean);
    }
    let width = ["embedding_dimension", "word_embedding_dimension"];
    let width = width.iter().find_map(|key| config.get(*key)?.as_u64());
    if let Some(width) = width
        && width != model.encoder_embed_dim as u64
    {
        return Err(refuse(
            folder,
            format!(
                "it pools {width} numbers a token, the encoder has {}",
                model.encoder_embed_dim
            ),
        ));
    }
    let include_prompt = config.get("include_prompt").and_then(Value::as_bool);
    Ok((ways, include_prompt.unwrap_or(true)))
}

/// A Dense module behind `width` numbers.
fn read_dense(module: &Module, width: usize) -> Result<DenseModule, ConvertError> {
    let folder = &module.folder;
    let config = config_of(folder)?;
    embedding_to_embedding(module, &config)?;
    if config.get("use_residual").and_then(Value::as_bool) == Some(true) {
        return Err(refuse(
            folder,
            "its module Dense has use_residual, which is not kept",
        ));
    }
    let mut tensors = weights(folder)?;
    let mut take = |name: &str| -> Option<Tensor> { tensors.remove(name) };
    let weight = take("linear.weight");
    let bias = take("linear.bias");
    let biased = config.get("bias").and_then(Value::as_bool).unwrap_or(true);
    let size = |key: &str| {
        let size = config.get(key).and_then(Value::as_u64);
        size.and_then(|n| usize::try_from(n).ok())
    };
    let fits = |weight: &Tensor| {
        let (outputs, inputs) = (size("out_features"), size("in_features"));
        let known = |found: usize, said: Option<usize>| said.is_none_or(|said| said == found);
        weight.element.is_float()
            && matches!(weight.shape[..], [o, i] if i == width && known(o, outputs) && known(i, inputs))
            && bias.is_some() == biased
            && bias
                .as_ref()
                .is_none_or(|b| b.element.is_float() && b.shape == [weight.rows()])
    };
    let weight = weight.filter(fits).ok_or_else(|| {
        refuse(
            folder,
            format!("its module Dense has no linear.weight and linear.bias for {width} numbers"),
        )
    })?;
    let activation = config.get("activation_function").and_then(Value::as_str);
    Ok(DenseModule {
        weight,
        bias,
        activation: activation.unwrap_or(DEFAULT_ACTIVATION).to_owned(),
    })
}

/// What a folder of transformers was trained for where it was for another task than embedding texts, in
/// words. CrossEncoder of releases before 6 writes such a folder, without `modules.json`.
fn task_of_head(folder: &Path) -> Result<Option<String>, ConvertError> {
    let Some(config) = read_json(&folder.join(CONFIG_FILE))? else {
        return Ok(None);
    };
    let architecture = config["architectures"][0].as_str().unwrap_or_default();
    let task = architecture.strip_prefix("MPNetFor");
    Ok(match task.filter(|task| *task != "MaskedLM") {
        Some(_)
            if config["sentence_transformers"]
                .get("activation_fn")
                .is_some() =>
        {
            Some("it is a CrossEncoder, not a SentenceTransformer".to_owned())
        }
        Some(_) => Some(format!(
            "it is a {architecture} (a CrossEncoder, perhaps), not a SentenceTransformer"
        )),
        None => None,
    })
}

/// Prompts and similarity.
fn settings(folder: &Path) -> Result<Map<String, Value>, ConvertError> {
    let path = folder.join(SETTINGS_FILE);
    let mut settings = match read_json(&path)? {
        Some(Value::Object(settings)) => settings,
        None => Map::new(),
        Some(_) => return Err(ConvertError::damaged(&path, "it is no JSON object")),
    };
    // Of the libraries that wrote it, which did not write what this program does.
    settings.remove("__version__");
    match settings.get("model_type").map(|kind| kind.as_str()) {
        None | Some(Some("SentenceTransformer")) => Ok(settings),
        Some(kind) => Err(refuse(
            folder,
            format!(
                "it is a {}, not a SentenceTransformer",
                kind.unwrap_or("model of another kind")
            ),
        )),
    }
}

/// How long texts may be, and whether they are written in lower case. The first is in the tokenizer's
/// configuration since release 6.
fn read_encoder(
    folder: &Path,
    model: &ModelConfig,
    left_out: &mut Vec<String>,
) -> Result<(usize, bool), ConvertError> {
    let mut config = Map::new();
    for name in TRANSFORMER_FILES {
        if let Some(Value::Object(found)) = read_json(&folder.join(name))? {
            config = found;
            break;
        }
    }
    match config.get("transformer_task").and_then(Value::as_str) {
        None | Some("feature-extraction") => {}
        Some(task) => {
            return Err(refuse(
                folder,
                format!("its module Transformer is one for {task}, not for feature-extraction"),
            ));
        }
    }
    for (key, value) in &config {
        let empty = match value {
            Value::Null => true,
            Value::Object(map) => map.is_empty(),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => false,
        };
        if ["query_length", "document_length", "query_expansion"].contains(&key.as_str()) && !empty
        {
            return Err(refuse(
                folder,
                format!("its module Transformer has {key}, as models of many vectors a text have"),
            ));
        }
        if !empty && !KNOWN_SETTINGS.contains(&key.as_str()) {
            left_out.push(format!("the Transformer's {key} ({value})"));
        }
    }
    let tokenizer = read_json(&folder.join(TOKENIZER_CONFIG_FILE))?.unwrap_or_default();
    let length = config.get("max_seq_length").and_then(Value::as_u64);
    // Where there is none, transformers writes 1e30.
    let length = length
        .or_else(|| tokenizer["model_max_length"].as_u64())
        .and_then(|n| usize::try_from(n).ok())
        .filter(|&n| n > 0);
    if let Some(length) = length.filter(|&n| n > model.max_positions && n < 1 << 24) {
        left_out.push(format!(
            "its length of {length} tokens, more than the encoder's {} positions",
            model.max_positions
        ));
    }
    let length = length
        .unwrap_or(model.max_positions)
        .min(model.max_positions);
    let lower = config.get("do_lower_case").and_then(Value::as_bool);
    Ok((length, lower.unwrap_or(false)))
}
