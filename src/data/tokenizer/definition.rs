//! What a tokenizer's files say: the definition, and which token has which role.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::read_json;
use super::{CONFIG_FILE, SPECIAL_TOKENS_FILE};
use crate::data::error::{DataError, Result};

/// With fewer `##` tokens than this the vocabulary is not taken for WordPiece.
pub(super) const FEWEST_CONTINUATIONS: usize = 100;
pub(super) const CONTINUATION: &str = "##";

/// A special token that a model refers to by its role.
pub(super) struct Role {
    pub name: &'static str,
    /// What it is called in a sentence.
    pub part: &'static str,
    /// Whether there is no training without it.
    pub required: bool,
    /// Keys of the configuration that name it, the first that is there wins.
    keys: &'static [&'static str],
    /// Tokens taken for it where no configuration names one.
    usual: &'static [&'static str],
    pub usual_text: &'static str,
}

pub(super) const BOS: Role = Role {
    name: "bos",
    part: "start token",
    required: true,
    keys: &["bos_token", "cls_token"],
    usual: &["<s>", "[CLS]"],
    usual_text: "<s>",
};
pub(super) const PAD: Role = Role {
    name: "pad",
    part: "padding token",
    required: true,
    keys: &["pad_token"],
    usual: &["<pad>", "[PAD]"],
    usual_text: "<pad>",
};
pub(super) const EOS: Role = Role {
    name: "eos",
    part: "end token",
    required: true,
    keys: &["eos_token", "sep_token"],
    usual: &["</s>", "[SEP]"],
    usual_text: "</s>",
};
pub(super) const UNK: Role = Role {
    name: "unk",
    part: "unknown token",
    required: false,
    keys: &["unk_token"],
    usual: &["[UNK]", "<unk>"],
    usual_text: "[UNK]",
};
pub(super) const MASK: Role = Role {
    name: "mask",
    part: "mask token",
    required: true,
    keys: &["mask_token"],
    usual: &["<mask>", "[MASK]"],
    usual_text: "<mask>",
};

/// Every role.
pub(super) const ROLES: &[Role] = &[BOS, PAD, EOS, UNK, MASK];

/// A tokenizer's files, read but not judged.
pub(super) struct Definition {
    pub path: PathBuf,
    pub inner: tokenizers::Tokenizer,
    pub json: Value,
    /// The configurations beside it.
    configs: Vec<Value>,
}

impl Definition {
    /// Reads the definition `path` and the configurations beside it.
    ///
    /// # Errors
    /// When a file can't be read or is no definition of a tokenizer.
    pub fn read(path: PathBuf) -> Result<Self> {
        let invalid = |problem: String| DataError::TokenizerInvalid {
            path: path.clone(),
            problem,
        };
        let bytes = std::fs::read(&path).map_err(|source| DataError::TokenizerRead {
            path: path.clone(),
            source,
        })?;
        let not_one = "it is no definition of a HuggingFace tokenizer";
        let json: Value =
            serde_json::from_slice(&bytes).map_err(|e| invalid(format!("{not_one}: {e}")))?;
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| invalid(format!("{not_one}: {e}")))?;
        // Rows are cut and padded here, whatever the file asks for.
        inner.with_padding(None);
        inner
            .with_truncation(None)
            .map_err(|e| invalid(e.to_string()))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut configs = Vec::new();
        for name in [CONFIG_FILE, SPECIAL_TOKENS_FILE] {
            configs.extend(read_json(&folder.join(name))?);
        }
        Ok(Self {
            path,
            inner,
            json,
            configs,
        })
    }

    /// The definition as the tokenizers library writes it, without how rows are cut and padded, ids become text and
    /// places are told: equal for files of different versions that make the same ids.
    fn encoding(&self) -> Result<Value> {
        let invalid = |problem: String| DataError::TokenizerInvalid {
            path: self.path.clone(),
            problem,
        };
        let text = self.inner.to_string(false);
        let text = text.map_err(|e| invalid(e.to_string()))?;
        let mut value: Value = serde_json::from_str(&text).map_err(|e| invalid(e.to_string()))?;
        if let Some(whole) = value.as_object_mut() {
            whole.remove("decoder");
            let after = whole
                .get_mut("post_processor")
                .and_then(Value::as_object_mut);
            if let Some(after) = after {
                // transformers 5 writes another value than was read.
                after.remove("add_prefix_space");
                after.remove("trim_offsets");
            }
        }
        Ok(value)
    }

    /// The id of a role's token, if there is one.
    pub fn role(&self, role: &Role) -> Option<u32> {
        find_role(role, &self.configs, &self.json, &self.inner)
    }

    /// Ids of the special tokens, some more than once.
    pub fn special(&self) -> Vec<u32> {
        let mut ids = special_ids(&self.configs, &self.inner);
        ids.extend(ROLES.iter().filter_map(|role| self.role(role)));
        let added = self.inner.get_added_tokens_decoder();
        ids.extend(added.iter().filter(|(_, t)| t.special).map(|(&id, _)| id));
        ids
    }
}

/// Whether two definitions, with the configurations beside them, make the same tokens and give them the
/// same parts. How they cut and pad rows does not matter.
///
/// # Errors
/// When one can't be read or is no definition.
pub fn same_tokenizer(a: &Path, b: &Path) -> Result<bool> {
    let [a, b] = [a, b].map(|path| Definition::read(path.to_owned()));
    let (a, b) = (a?, b?);
    let special = |definition: &Definition| BTreeSet::from_iter(definition.special());
    let same_role = |role: &Role| a.role(role) == b.role(role);
    Ok(a.encoding()? == b.encoding()? && ROLES.iter().all(same_role) && special(&a) == special(&b))
}

/// The text of a token in a configuration: a string, or an object with its `content`.
fn token_text(value: &Value) -> Option<&str> {
    value
        .as_str()
        .or_else(|| value.get("content").and_then(Value::as_str))
}

/// The id of a role: as a configuration names it, as the model does (unknown), or by the usual name.
fn find_role(
    role: &Role,
    configs: &[Value],
    definition: &Value,
    inner: &tokenizers::Tokenizer,
) -> Option<u32> {
    let named = role
        .keys
        .iter()
        .flat_map(|key| configs.iter().filter_map(move |c| token_text(c.get(key)?)));
    let models = definition
        .pointer("/model/unk_token")
        .and_then(Value::as_str)
        .filter(|_| role.name == UNK.name);
    named
        .chain(models)
        .chain(role.usual.iter().copied())
        .find_map(|token| inner.token_to_id(token))
}

/// Ids of every token that the configurations call special, in a role or beyond them.
fn special_ids(configs: &[Value], inner: &tokenizers::Tokenizer) -> Vec<u32> {
    let mut ids = Vec::new();
    for config in configs {
        let Some(entries) = config.as_object() else {
            continue;
        };
        for (key, value) in entries {
            let tokens: Vec<&str> = match key.as_str() {
                "bos_token" | "eos_token" | "unk_token" | "sep_token" | "pad_token"
                | "cls_token" | "mask_token" => token_text(value).into_iter().collect(),
                "additional_special_tokens" | "extra_special_tokens" => match value {
                    Value::Array(list) => list.iter().filter_map(token_text).collect(),
                    Value::Object(named) => named.values().filter_map(token_text).collect(),
                    Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => vec![],
                },
                _ => vec![],
            };
            ids.extend(tokens.iter().filter_map(|token| inner.token_to_id(token)));
        }
    }
    ids
}

/// Whether the definition is BERT's, whose words end at every space, so that no token reaches over one.
pub(super) fn splits_at_spaces(definition: &Value) -> bool {
    let kind = |part: &str| {
        let kind = definition.get(part)?.get("type")?;
        kind.as_str()
    };
    let no_space_in_added = definition
        .get("added_tokens")
        .and_then(Value::as_array)
        .is_none_or(|tokens| {
            tokens
                .iter()
                .filter_map(token_text)
                .all(|token| !token.contains(char::is_whitespace))
        });
    kind("model") == Some("WordPiece")
        && kind("normalizer") == Some("BertNormalizer")
        && kind("pre_tokenizer") == Some("BertPreTokenizer")
        && no_space_in_added
}
