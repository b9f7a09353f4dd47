//! A tokenizer's files for other programs, complete: what they take from elsewhere, or guess, stands in
//! them.

use std::path::Path;

use serde_json::{Map, Value, json};
use tokenizers::{PaddingParams, PaddingStrategy, TruncationParams};

use super::definition::{BOS, CONTINUATION, Definition, EOS, MASK, PAD, Role, UNK};
use super::files::{copy_tokenizer, read_json};
use super::{CONFIG_FILE, TOKENIZER_FILE};
use crate::data::error::{DataError, Result};

/// transformers' class for BERT's way of splitting text with MPNet's special tokens.
const MPNET_CLASS: &str = "MPNetTokenizer";
/// transformers' class that takes a definition as it is, under the name that every version knows.
const PLAIN_CLASS: &str = "PreTrainedTokenizerFast";
/// Classes that some versions of transformers build anew from the vocabulary and the flags, as BERT's.
const BERT_CLASSES: [&str; 4] = [
    MPNET_CLASS,
    "MPNetTokenizerFast",
    "BertTokenizer",
    "BertTokenizerFast",
];
/// Names of [`PLAIN_CLASS`] that not every version knows.
const PLAIN_CLASSES: [&str; 3] = [PLAIN_CLASS, "TokenizersBackend", "PreTrainedTokenizer"];
const MAX_LENGTH: &str = "model_max_length";
const INPUTS: &str = "model_input_names";
/// The one input of BERT that MPNet does not have.
const NO_INPUT: &str = "token_type_ids";

/// Copies the tokenizer of that definition into `folder`, for rows of at most `length` tokens: cutting and
/// padding that it has of its own become the model's, and its configuration says all that transformers
/// needs to make the same tokens.
///
/// # Errors
/// When a file can't be read or written.
pub fn write_tokenizer(definition: &Path, folder: &Path, length: usize) -> Result<()> {
    copy_tokenizer(definition, folder)?;
    let definition = Definition::read(definition.to_owned())?;
    if let Some(text) = with_limits(&definition, length)? {
        write(&folder.join(TOKENIZER_FILE), &text)?;
    }
    let given = read_json(&folder.join(CONFIG_FILE))?;
    let (mut config, _) = completed(&definition, given.as_ref());
    // Where it names none, transformers writes 1e30.
    let longest = config.get(MAX_LENGTH).and_then(Value::as_f64);
    if longest.is_none_or(|longest| longest > length as f64) {
        config.insert(MAX_LENGTH.to_owned(), length.into());
    }
    let config = Value::Object(config);
    if given.as_ref() == Some(&config) {
        return Ok(());
    }
    write(&folder.join(CONFIG_FILE), &format!("{config:#}"))
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, format!("{text}\n")).map_err(|source| DataError::Write {
        path: path.to_owned(),
        source,
    })
}

/// The definition with the cutting and padding that it has of its own set to `length` and to the longest
/// row; `None` where it has neither.
fn with_limits(definition: &Definition, length: usize) -> Result<Option<String>> {
    let invalid = |problem: String| DataError::TokenizerInvalid {
        path: definition.path.clone(),
        problem,
    };
    let block = |name: &str| definition.json.get(name).filter(|block| !block.is_null());
    let (truncation, padding) = (block("truncation"), block("padding"));
    if truncation.is_none() && padding.is_none() {
        return Ok(None);
    }
    let mut inner = definition.inner.clone();
    if let Some(truncation) = truncation {
        let mut params: TruncationParams =
            serde_json::from_value(truncation.clone()).map_err(|e| invalid(e.to_string()))?;
        (params.max_length, params.stride) = (length, 0);
        inner
            .with_truncation(Some(params))
            .map_err(|e| invalid(e.to_string()))?;
    }
    if let Some(padding) = padding {
        let mut params: PaddingParams =
            serde_json::from_value(padding.clone()).map_err(|e| invalid(e.to_string()))?;
        params.strategy = PaddingStrategy::BatchLongest;
        params.pad_to_multiple_of = None;
        if let Some(pad) = definition.role(&PAD) {
            params.pad_id = pad;
            params.pad_token = inner.id_to_token(pad).unwrap_or_default();
        }
        inner.with_padding(Some(params));
    }
    let text = inner.to_string(true).map_err(|e| invalid(e.to_string()))?;
    Ok(Some(text))
}

/// The configuration `given` with all that transformers needs to make the tokens of `definition`, and what
/// it lacks or says otherwise, in words.
pub(super) fn completed(
    definition: &Definition,
    given: Option<&Value>,
) -> (Map<String, Value>, Vec<String>) {
    let mut config = given
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let mut wrong = Vec::new();
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    let class = class.map(str::to_owned);
    let flags = bert_flags(&definition.json);
    let known = |classes: &[&str]| class.as_deref().is_none_or(|c| classes.contains(&c));
    let set =
        |config: &mut Map<String, Value>, key: &str, value: Value, wrong: &mut Vec<String>| {
            if config.get(key) != Some(&value) {
                wrong.push(match config.get(key) {
                    Some(before) => format!("{key} is {before} and not {value}"),
                    None => format!("{key} ({value}) is not there"),
                });
                config.insert(key.to_owned(), value);
            }
        };
    match &flags {
        Some(flags) if known(&BERT_CLASSES) => {
            let class = class.as_deref().unwrap_or(MPNET_CLASS);
            set(&mut config, "tokenizer_class", class.into(), &mut wrong);
            for (key, value, usual) in flags {
                // What the class takes where the flag is missing needs no flag.
                if config.get(*key).unwrap_or(usual) != value {
                    set(&mut config, key, value.clone(), &mut wrong);
                }
            }
        }
        Some(_) | None if known(&BERT_CLASSES) || known(&PLAIN_CLASSES) => {
            set(
                &mut config,
                "tokenizer_class",
                PLAIN_CLASS.into(),
                &mut wrong,
            );
        }
        // Of another class that its owner has chosen.
        Some(_) | None => {}
    }
    let roles: [(&str, &Role); 7] = [
        ("bos_token", &BOS),
        ("cls_token", &BOS),
        ("eos_token", &EOS),
        ("sep_token", &EOS),
        ("unk_token", &UNK),
        ("pad_token", &PAD),
        ("mask_token", &MASK),
    ];
    for (key, role) in roles {
        let named = config.get(key).is_some_and(|token| !token.is_null());
        let token = definition.role(role);
        let token = token.and_then(|id| definition.inner.id_to_token(id));
        if let (false, Some(token)) = (named, token) {
            set(&mut config, key, token.into(), &mut wrong);
        }
    }
    let class = config.get("tokenizer_class").and_then(Value::as_str);
    let of_mpnet = class.is_some_and(|class| class.starts_with(MPNET_CLASS));
    let inputs = config.get(INPUTS).and_then(Value::as_array);
    let fits = match inputs {
        Some(inputs) => !inputs.iter().any(|input| input == NO_INPUT),
        None => of_mpnet,
    };
    if !fits {
        let inputs = json!(["input_ids", "attention_mask"]);
        set(&mut config, INPUTS, inputs, &mut wrong);
    }
    (config, wrong)
}

/// The flags by which transformers builds the definition's way of splitting text, with what it takes
/// where they are missing; `None` where it is not BERT's.
fn bert_flags(definition: &Value) -> Option<[(&'static str, Value, Value); 3]> {
    let kind = |part: &str| definition.get(part)?.get("type")?.as_str();
    let model = &definition["model"];
    let normalizer = &definition["normalizer"];
    let bert = kind("model") == Some("WordPiece")
        && kind("normalizer") == Some("BertNormalizer")
        && kind("pre_tokenizer") == Some("BertPreTokenizer")
        && model["continuing_subword_prefix"] == CONTINUATION
        && model["max_input_chars_per_word"] == 100
        && normalizer["clean_text"] == true;
    bert.then(|| {
        [
            (
                "do_lower_case",
                normalizer["lowercase"].clone(),
                true.into(),
            ),
            (
                "strip_accents",
                normalizer["strip_accents"].clone(),
                Value::Null,
            ),
            (
                "tokenize_chinese_chars",
                normalizer["handle_chinese_chars"].clone(),
                true.into(),
            ),
        ]
    })
}
