//! Writes a folder that annotated-mpnet resumes from: a checkpoint in its layout, and the tokenizer.
//!
//! Its trainer loads `args` (the architecture) and `model_states`, and with `--resume --checkpoint-dir FOLDER
//! --tokenizer-name FOLDER/tokenizer` starts its optimizer anew where a checkpoint has no `data_state`. Read off
//! annotated-mpnet 01a9b09.

use super::pytorch::{Object, save};
use super::source::Source;
use super::weight_map::{Layout, by_native};
use super::{ConvertError, refuse_strangers};
use crate::data::tokenizer::write_tokenizer;
use crate::staging::Staging;
use mpnet_graphs::model::config::ModelConfig;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::Path;

/// The checkpoint: the name of the best one, which its trainer looks for as well.
const CHECKPOINT_FILE: &str = "best_checkpoint.pt";
/// The tokenizer's folder beside it.
const TOKENIZER_FOLDER: &str = "tokenizer";

/// Writes the model of `source` as the folder `target`. What this program wrote there before is replaced.
///
/// # Errors
/// Where the model has no tokenizer, the folder holds other things, or a file cannot be read or written; what was there
/// before stays.
pub fn write_annotated_mpnet(target: &Path, source: &Source) -> Result<(), ConvertError> {
    let Some(tokenizer) = &source.tokenizer else {
        return Err(ConvertError::NoTokenizer);
    };
    refuse_strangers(target, known)?;
    let folder =
        Staging::new(target).map_err(ConvertError::io("create a folder beside", target))?;
    let path = folder.path().join(CHECKPOINT_FILE);
    let file = File::create(&path).map_err(ConvertError::io("create", &path))?;
    let root = Object::Dict(vec![
        ("args".to_owned(), Object::Dict(args(&source.model)?)),
        ("model_states".to_owned(), Object::Dict(states(source))),
    ]);
    let read = |index: usize| Ok(source.read(&source.parameters[index])?.values);
    save(BufWriter::new(file), &root, source.parameters.len(), read)
        .map_err(|failure: super::StreamFailure| failure.of(&path))?;
    let own = folder.path().join(TOKENIZER_FOLDER);
    fs::create_dir(&own).map_err(ConvertError::io("create", &own))?;
    write_tokenizer(tokenizer, &own, source.model.max_positions)?;
    folder.replace().map_err(ConvertError::io("write", target))
}

/// Every parameter under its name there, and once more where it is tied: both then have one storage.
fn states(source: &Source) -> Vec<(String, Object)> {
    let names = by_native(Layout::Annotated, &source.model);
    let mut states = Vec::new();
    for (index, stored) in source.parameters.iter().enumerate() {
        let mapped = &names[&stored.name];
        for name in mapped.parts.iter().chain(&mapped.tied) {
            let shape = stored.shape.clone();
            states.push((name.clone(), Object::Tensor { index, shape }));
        }
    }
    states
}

/// The model's sizes under the names of annotated-mpnet's flags.
fn args(model: &ModelConfig) -> Result<Vec<(String, Object)>, ConvertError> {
    let whole = |name: &str, size: usize| match i32::try_from(size) {
        Ok(size) => Ok((name.to_owned(), Object::Whole(size))),
        Err(_) => Err(ConvertError::Encode {
            file: CHECKPOINT_FILE.to_owned(),
            reason: format!("{name} is {size}"),
        }),
    };
    let token = |name: &str, id: i64| whole(name, usize::try_from(id).unwrap_or_default());
    let number = |name: &str, value: f32| {
        // The decimal that the number was written as, not the f64 nearest to the f32.
        let value = value.to_string().parse().unwrap_or(f64::from(value));
        (name.to_owned(), Object::Number(value))
    };
    Ok(vec![
        whole("encoder_layers", model.encoder_layers)?,
        whole("encoder_embed_dim", model.encoder_embed_dim)?,
        whole("encoder_ffn_dim", model.encoder_ffn_dim)?,
        whole("encoder_attention_heads", model.encoder_attention_heads)?,
        number("dropout", model.dropout),
        number("attention_dropout", model.attention_dropout),
        number("activation_dropout", model.activation_dropout),
        (
            "activation_fn".to_owned(),
            Object::Text(model.activation_fn.name().to_owned()),
        ),
        (
            "normalize_before".to_owned(),
            Object::Truth(model.normalize_before),
        ),
        whole("max_positions", model.max_positions)?,
        whole("max_tokens", model.max_positions)?,
        whole(
            "relative_attention_num_buckets",
            model.relative_attention_num_buckets,
        )?,
        whole(
            "relative_attention_max_distance",
            model.relative_attention_max_distance,
        )?,
        token("pad_token_id", model.pad_token_id)?,
        token("bos_token_id", model.bos_token_id)?,
        token("eos_token_id", model.eos_token_id)?,
        whole("num_segments", 0)?,
        whole("original_vocab_size", model.vocab_size)?,
        whole("padded_vocab_size", model.padded_vocab_size)?,
    ])
}

/// Whether a folder written by this program can hold it. A run's checkpoints lie beside such files, too.
fn known(name: &OsStr) -> bool {
    [CHECKPOINT_FILE, TOKENIZER_FOLDER]
        .iter()
        .any(|file| name == *file)
}
