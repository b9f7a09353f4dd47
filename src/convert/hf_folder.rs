//! Writes a HuggingFace model folder: whole, or not at all.

use super::hf_config::{CONFIG_FILE, HfConfig, unrepresentable};
use super::hf_weights::{INDEX_FILE, MODEL_FILE, outputs, write_weights};
use super::json::write_json;
use super::model_card::{MARK, model_card};
use super::options::{HfOptions, OutputHead};
use super::sentence_transformers::{is_module_file, write_modules};
use super::source::Source;
use super::{ConvertError, refuse_strangers};
use crate::data::tokenizer::{TOKENIZER_FILES, write_tokenizer};
use crate::staging::Staging;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;

/// The model card, which its owner may replace.
const CARD_FILE: &str = "README.md";

/// Writes the model of `source` as the HuggingFace model folder `target`. A model that is there already
/// is replaced.
///
/// # Errors
/// Where HuggingFace cannot represent the model (unless forced), or a file cannot be written; what was
/// there before stays.
pub fn write_hf_folder(
    target: &Path,
    source: &Source,
    options: &HfOptions,
) -> Result<(), ConvertError> {
    let config = &source.model;
    source.check_head(&options.head)?;
    let reasons = unrepresentable(config);
    if !reasons.is_empty() && !options.force {
        return Err(ConvertError::Unrepresentable { reasons });
    }
    let tokenizer = match (options.tokenizer, &source.tokenizer) {
        (false, _) => None,
        (true, Some(tokenizer)) => Some(tokenizer),
        (true, None) => return Err(ConvertError::NoTokenizer),
    };
    check_target(target)?;
    let folder =
        Staging::new(target).map_err(ConvertError::io("create a folder beside", target))?;

    let vocabulary = match options.trim_vocab {
        true => config.vocab_size,
        false => config.padded_vocab_size,
    };
    let outputs = outputs(source, options, vocabulary);
    let parameters = outputs
        .iter()
        .map(|o| o.planned.shape.iter().product::<usize>())
        .sum();
    write_weights(folder.path(), &outputs, options)?;
    let hf_config = HfConfig::new(config, vocabulary, options.dtype.name());
    let hf_config = hf_config.of_class(options.head.class(), options.head.config());
    write_json(folder.path(), CONFIG_FILE, &hf_config)?;
    if let OutputHead::Sentence(sentence) = &options.head {
        write_modules(folder.path(), config, sentence)?;
    }
    if let Some(tokenizer) = tokenizer {
        write_tokenizer(tokenizer, folder.path(), options.head.length(config))?;
    }
    let card = target.join(CARD_FILE);
    let path = folder.path().join(CARD_FILE);
    // The owner's words stay with the model.
    match fs::read_to_string(&card) {
        Ok(words) if !words.contains(MARK) => fs::write(&path, words),
        Ok(_) | Err(_) => fs::write(&path, model_card(source, vocabulary, parameters, options)),
    }
    .map_err(ConvertError::io("write", &path))?;
    folder.replace().map_err(ConvertError::io("write", target))
}

/// Whether a folder written by this program can hold it, or its owner's own words beside it.
fn known(name: &OsStr) -> bool {
    let files = [MODEL_FILE, INDEX_FILE, CONFIG_FILE, CARD_FILE];
    let shard = |name: &str| name.starts_with("model-") && name.ends_with(".safetensors");
    files
        .iter()
        .chain(&TOKENIZER_FILES)
        .any(|file| name == *file)
        || name
            .to_str()
            .is_some_and(|name| shard(name) || is_module_file(name))
}

/// Whether a model could be written to `target`. A folder with anything else in it is not replaced.
///
/// # Errors
/// Where there is such a folder, or a file.
pub fn check_target(target: &Path) -> Result<(), ConvertError> {
    refuse_strangers(target, known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::{self, Checkpoint};
    use crate::convert::import::import;
    use crate::convert::options::WeightType;
    use crate::convert::source::SourceOptions;
    use crate::convert::testing::{config, numbered};
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn native_to_hf_to_native_is_the_identity(
            layers in 1usize..4, heads in 1usize..4, width in 1usize..6, vocab in 5usize..40,
            max_shard_size in 1u64..20_000,
        ) {
            let config = config(layers, heads, width, vocab);
            let place = tempfile::tempdir().unwrap();
            let first = Checkpoint {
                parameters: numbered(&config),
                model: config,
                config: serde_json::Value::Null,
                step: 0,
                best_loss: None,
                best_figure: None,
                validated: None,
                data: serde_json::Value::Null,
                seed: 1,
                optimizer: None,
                tokenizer: None,
            };
            let open = |path: &Path| Source::open(path, &SourceOptions::default()).unwrap();
            let native = checkpoint::save(place.path(), &first).unwrap();
            let options = HfOptions {
                head: OutputHead::MaskedLm,
                dtype: WeightType::Float32,
                max_shard_size,
                trim_vocab: false,
                tokenizer: false,
                force: false,
            };
            let hf = place.path().join("hf");
            write_hf_folder(&hf, &open(&native), &options).unwrap();
            // Every number of the model is another one: none is lost or comes twice.
            let mut all: Vec<f32> = fs::read_dir(&hf)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
                .flat_map(|path| super::super::safetensors_file::tensors(&path).unwrap())
                .flat_map(|(_, tensor)| tensor.read(0..tensor.rows()).unwrap())
                .collect();
            all.sort_by(f32::total_cmp);
            prop_assert!(all.iter().enumerate().all(|(i, &x)| x == i as f32 + 1.0));
            let again = import(&open(&hf), &place.path().join("back"), 1).unwrap();
            let again = checkpoint::load(&again).unwrap();
            prop_assert_eq!(again.parameters, first.parameters);
        }
    }
}
