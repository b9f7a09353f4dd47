//! A HuggingFace tokenizer from disk, with the roles of its special tokens and where words start.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Value;

use super::error::{DataError, Result};
use super::hub::{Hub, HubSettings, tokenizer_folder};
use super::words::WordCache;

/// With fewer `##` tokens than this the vocabulary is not taken for WordPiece.
pub(super) const FEWEST_CONTINUATIONS: usize = 100;
pub(super) const CONTINUATION: &str = "##";

/// The files that make up a tokenizer; only the first has to be there.
pub const TOKENIZER_FILES: [&str; 5] = [
    TOKENIZER_FILE,
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    "vocab.txt",
    "added_tokens.json",
];
pub const TOKENIZER_FILE: &str = "tokenizer.json";
pub const CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

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

const BOS: Role = Role {
    name: "bos",
    part: "start token",
    required: true,
    keys: &["bos_token", "cls_token"],
    usual: &["<s>", "[CLS]"],
    usual_text: "<s>",
};
const PAD: Role = Role {
    name: "pad",
    part: "padding token",
    required: true,
    keys: &["pad_token"],
    usual: &["<pad>", "[PAD]"],
    usual_text: "<pad>",
};
const EOS: Role = Role {
    name: "eos",
    part: "end token",
    required: true,
    keys: &["eos_token", "sep_token"],
    usual: &["</s>", "[SEP]"],
    usual_text: "</s>",
};
const UNK: Role = Role {
    name: "unk",
    part: "unknown token",
    required: false,
    keys: &["unk_token"],
    usual: &["[UNK]", "<unk>"],
    usual_text: "[UNK]",
};
const MASK: Role = Role {
    name: "mask",
    part: "mask token",
    required: true,
    keys: &["mask_token"],
    usual: &["<mask>", "[MASK]"],
    usual_text: "<mask>",
};

/// Every role.
pub(super) const ROLES: &[Role] = &[BOS, PAD, EOS, UNK, MASK];

/// A tokenizer ready to make rows `<s> … </s>`; shared between threads.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// The tokenizer file that was read.
    path: PathBuf,
    /// Each id's token; `None` where the vocabulary has a hole.
    tokens: Vec<Option<String>>,
    special: Vec<bool>,
    whole_words: bool,
    /// Known words, where texts may be tokenized word by word with the same result.
    words: Option<WordCache>,
    bos: u32,
    pad: u32,
    eos: u32,
    unk: Option<u32>,
    mask: u32,
}

impl std::fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokenizer")
            .field("path", &self.path)
            .field("vocab_size", &self.vocab_size())
            .finish_non_exhaustive()
    }
}

impl Tokenizer {
    /// Loads the tokenizer called `name`: a folder with a `tokenizer.json`, such a file, or a name on the
    /// HuggingFace Hub.
    ///
    /// # Errors
    /// When nothing is there, it can't be parsed, or it lacks a mask, padding, start or end token.
    pub fn load(name: &str) -> Result<Self> {
        Self::new(Definition::read(locate(name)?)?)
    }

    fn new(definition: Definition) -> Result<Self> {
        let invalid = |problem: String| DataError::TokenizerInvalid {
            path: definition.path.clone(),
            problem,
        };
        let inner = &definition.inner;
        let vocabulary = inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        // Holes are legal, but an id far beyond the count is a broken file, not a vocabulary.
        if size > 2 * vocabulary.len() + 100_000 {
            return Err(invalid(format!(
                "it has {} tokens but ids up to {}",
                vocabulary.len(),
                size - 1
            )));
        }
        let mut tokens = vec![None; size];
        for (token, id) in vocabulary {
            tokens[id as usize] = Some(token);
        }
        let continuations = tokens.iter().flatten();
        let continuations = continuations
            .filter(|t| t.starts_with(CONTINUATION))
            .count();

        let require = |role: &Role| {
            definition.role(role).ok_or(DataError::MissingToken {
                path: definition.path.clone(),
                role: role.name,
                usual: role.usual_text,
            })
        };
        let (mask, pad) = (require(&MASK)?, require(&PAD)?);
        let (bos, eos) = (require(&BOS)?, require(&EOS)?);
        let unk = definition.role(&UNK);

        let mut special = vec![false; size];
        for id in definition.special() {
            special[id as usize] = true;
        }

        let whole_words = continuations >= FEWEST_CONTINUATIONS;
        if !whole_words {
            tracing::warn!(
                "the tokenizer in {} has {continuations} tokens with {CONTINUATION}, fewer than \
                 {FEWEST_CONTINUATIONS}: masking token by token, not by whole words",
                definition.path.display()
            );
        }
        Ok(Self {
            words: splits_at_spaces(&definition.json).then(WordCache::default),
            inner: definition.inner,
            tokens,
            special,
            whole_words,
            bos,
            pad,
            eos,
            unk,
            mask,
            path: definition.path,
        })
    }

    /// The tokenizer file that was read.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One more than the largest id.
    pub fn vocab_size(&self) -> usize {
        self.tokens.len()
    }

    /// Id of `<s>`, which starts every row.
    pub fn bos_id(&self) -> u32 {
        self.bos
    }

    /// Id of `<pad>`.
    pub fn pad_id(&self) -> u32 {
        self.pad
    }

    /// Id of `</s>`, which ends every row.
    pub fn eos_id(&self) -> u32 {
        self.eos
    }

    /// Id of the unknown token in use (`[UNK]` in MPNet's), if there is one.
    pub fn unk_id(&self) -> Option<u32> {
        self.unk
    }

    /// Id of `<mask>`.
    pub fn mask_id(&self) -> u32 {
        self.mask
    }

    /// Whether `id` is a special token, never predicted and never put in at random.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// All special ids, ascending.
    pub fn special_ids(&self) -> Vec<u32> {
        let ids = 0..self.special.len() as u32;
        ids.filter(|&id| self.is_special(id)).collect()
    }

    /// Whether the vocabulary has a token of this id.
    pub fn has_token(&self, id: u32) -> bool {
        self.token(id).is_some()
    }

    /// The token of this id.
    pub fn token(&self, id: u32) -> Option<&str> {
        self.tokens.get(id as usize)?.as_deref()
    }

    /// Whether tokens are grouped into words (WordPiece) rather than masked one by one.
    pub fn has_whole_words(&self) -> bool {
        self.whole_words
    }

    /// Whether a word starts at this token: always, where words are not told apart.
    pub fn starts_word(&self, id: u32) -> bool {
        let continues = |token: &str| token.starts_with(CONTINUATION);
        !(self.whole_words && self.token(id).is_some_and(continues))
    }

    /// `<s>`, the tokens of `text`, `</s>`: at most `max_tokens` in all (at least 2).
    ///
    /// # Errors
    /// When the tokenizer fails on the text, as one without an unknown token may.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<Vec<u32>> {
        let most = max_tokens.saturating_sub(1).max(1);
        let mut row = Vec::with_capacity(max_tokens.min(text.len() / 3 + 3));
        row.push(self.bos);
        let tokenize = |text: &str| -> Result<Vec<u32>> {
            let encoding = self.inner.encode_fast(text, false);
            match encoding {
                Ok(encoding) => Ok(encoding.get_ids().to_vec()),
                Err(e) => Err(DataError::Tokenize {
                    start: text.chars().take(60).collect(),
                    problem: e.to_string(),
                }),
            }
        };
        match &self.words {
            Some(words) => words.append(text, &mut row, most, tokenize)?,
            None => {
                row.extend(tokenize(text)?);
                row.truncate(most);
            }
        }
        row.push(self.eos);
        Ok(row)
    }

    /// [`encode`](Self::encode) of many texts, on the threads of the current rayon pool.
    ///
    /// # Errors
    /// Those of `encode`, the first in the order of the texts.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        max_tokens: usize,
    ) -> Result<Vec<Vec<u32>>> {
        let rows: Vec<_> = texts
            .par_iter()
            .map(|text| self.encode(text.as_ref(), max_tokens))
            .collect();
        rows.into_iter().collect()
    }
}

/// The definition of the tokenizer called `name`: a folder with a `tokenizer.json`, such a file, or that of a
/// repository on the HuggingFace Hub.
///
/// # Errors
/// When nothing is there.
pub(super) fn locate(name: &str) -> Result<PathBuf> {
    let given = Path::new(name);
    let path = if given.is_dir() {
        given.join(TOKENIZER_FILE)
    } else {
        given.to_owned()
    };
    if path.is_file() {
        return Ok(path);
    }
    if !given.is_dir() {
        return from_hub(name);
    }
    Err(DataError::TokenizerInvalid {
        path,
        problem: "the folder has no such file; transformers' save_pretrained of a fast tokenizer writes it".into(),
    })
}

/// The definition of the tokenizer of that name on the HuggingFace Hub, or in its cache.
fn from_hub(name: &str) -> Result<PathBuf> {
    let not_found = |hub| DataError::TokenizerNotFound {
        name: name.into(),
        hub,
    };
    let hub = Hub::new(HubSettings::from_env());
    match tokenizer_folder(&hub, name, "main") {
        Ok(Some(folder)) => Ok(folder.join(TOKENIZER_FILE)),
        Ok(None) => Err(not_found(None)),
        Err(error) => Err(not_found(Some(error))),
    }
}

/// A tokenizer's files, read but not judged.
pub(super) struct Definition {
    pub path: PathBuf,
    pub inner: tokenizers::Tokenizer,
    json: Value,
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
/// same parts.
///
/// # Errors
/// When one can't be read or is no definition.
pub fn same_tokenizer(a: &Path, b: &Path) -> Result<bool> {
    let [a, b] = [a, b].map(|path| Definition::read(path.to_owned()));
    let (a, b) = (a?, b?);
    let special = |definition: &Definition| BTreeSet::from_iter(definition.special());
    let same_role = |role: &Role| a.role(role) == b.role(role);
    Ok(a.json == b.json && ROLES.iter().all(same_role) && special(&a) == special(&b))
}

/// Copies a tokenizer's definition, under its usual name, and the files beside it that belong to it
/// into `folder`, which must exist.
///
/// # Errors
/// When a file can't be read or written.
pub fn copy_tokenizer(definition: &Path, folder: &Path) -> Result<()> {
    for name in TOKENIZER_FILES {
        let source = if name == TOKENIZER_FILE {
            definition.to_owned()
        } else {
            definition.with_file_name(name)
        };
        if !source.is_file() {
            continue;
        }
        // Contents only: a read-only original must not make a read-only copy.
        let bytes = std::fs::read(&source).map_err(|e| DataError::TokenizerRead {
            path: source,
            source: e,
        })?;
        let target = folder.join(name);
        std::fs::write(&target, bytes).map_err(|e| DataError::Write {
            path: target,
            source: e,
        })?;
    }
    Ok(())
}

/// The JSON in a file, `None` where there is no such file.
fn read_json(path: &Path) -> Result<Option<Value>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(DataError::TokenizerRead {
                path: path.to_owned(),
                source,
            });
        }
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|e| DataError::TokenizerInvalid {
            path: path.to_owned(),
            problem: format!("it is not JSON: {e}"),
        })
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
fn splits_at_spaces(definition: &Value) -> bool {
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

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn load(folder: &Path) -> Result<Tokenizer> {
        Tokenizer::load(folder.to_str().unwrap())
    }

    #[test]
    fn knows_its_special_tokens_and_words() {
        let tokenizer = fixture::tokenizer();
        assert_eq!(tokenizer.vocab_size(), fixture::MASK as usize + 1);
        assert_eq!(
            (tokenizer.bos_id(), tokenizer.pad_id(), tokenizer.eos_id()),
            (0, 1, 2)
        );
        assert_eq!(tokenizer.unk_id(), Some(fixture::UNK));
        assert_eq!(tokenizer.mask_id(), fixture::MASK);
        assert_eq!(
            tokenizer.special_ids(),
            [0, 1, 2, fixture::UNK, fixture::MASK],
            "<unk> is not in use, so it is a token like any other"
        );
        assert!(tokenizer.has_whole_words());
        assert!(tokenizer.starts_word(fixture::FIRST_LETTER));
        assert!(!tokenizer.starts_word(fixture::FIRST_CONTINUATION));
    }

    #[test]
    fn rows_have_start_and_end_and_are_cut() {
        let tokenizer = fixture::tokenizer();
        let a = fixture::FIRST_LETTER;
        let continued = fixture::FIRST_CONTINUATION;
        let row = tokenizer.encode("AB c ä!", 512).unwrap();
        assert_eq!(row, [0, a, continued + 1, a + 2, a, fixture::UNK, 2]);
        assert_eq!(
            tokenizer.encode("ab c", 4).unwrap(),
            [0, a, continued + 1, 2]
        );
        assert_eq!(tokenizer.encode("", 8).unwrap(), [0, 2]);
        assert_eq!(
            tokenizer.encode("a<mask>b", 8).unwrap(),
            [0, a, fixture::MASK, a + 1, 2]
        );
    }

    #[test]
    fn long_texts_come_out_as_if_tokenized_whole() {
        let tokenizer = fixture::tokenizer();
        assert!(tokenizer.words.is_some());
        let words = [
            "zebra",
            "a",
            "<mask>",
            "Ünïcode",
            "x\u{a0}y",
            "end.",
            "\t",
            "  ",
        ];
        let text: String = (0..400)
            .map(|i| words[i * 7 % 8].to_owned() + " ")
            .collect();
        let whole = tokenizer.inner.encode(text.as_str(), false).unwrap();
        for max_tokens in [3, 8, 50, 300, 2000, usize::MAX / 8] {
            let mut expected = vec![0];
            expected.extend(whole.get_ids().iter().take(max_tokens - 2));
            expected.push(2);
            assert_eq!(
                tokenizer.encode(&text, max_tokens).unwrap(),
                expected,
                "{max_tokens}"
            );
        }
    }

    #[test]
    fn batches_equal_single_texts() {
        let tokenizer = fixture::tokenizer();
        let texts = ["one", "two words", "", "and three words"];
        let rows = tokenizer.encode_batch(&texts, 6).unwrap();
        for (text, row) in texts.iter().zip(rows) {
            assert_eq!(row, tokenizer.encode(text, 6).unwrap());
        }
    }

    #[test]
    fn a_missing_role_is_named() {
        for (token, role) in [
            ("<mask>", "mask"),
            ("<pad>", "pad"),
            ("<s>", "bos"),
            ("</s>", "eos"),
        ] {
            let mut definition = fixture::definition();
            let vocabulary = definition["model"]["vocab"].as_object_mut().unwrap();
            let id = vocabulary.remove(token).unwrap();
            vocabulary.insert("nothing".into(), id);
            let added = definition["added_tokens"].as_array_mut().unwrap();
            added.retain(|t| t["content"] != token);
            definition["post_processor"] = Value::Null;
            let folder = tempfile::tempdir().unwrap();
            fixture::write(folder.path(), &definition);
            let error = load(folder.path()).unwrap_err();
            let text = error.to_string();
            assert!(
                matches!(error, DataError::MissingToken { role: named, .. } if named == role),
                "{text}"
            );
            assert!(
                text.contains(token) && text.contains("tokenizer.json"),
                "{text}"
            );
        }
    }

    #[test]
    fn configuration_beside_the_definition_decides_the_roles() {
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &fixture::definition());
        let config = r#"{"mask_token": {"content": "z"}, "additional_special_tokens": ["y"]}"#;
        std::fs::write(folder.path().join(CONFIG_FILE), config).unwrap();
        let tokenizer = load(folder.path()).unwrap();
        assert_eq!(tokenizer.token(tokenizer.mask_id()), Some("z"));
        assert!(tokenizer.is_special(fixture::FIRST_LETTER + 24));
        assert_eq!(
            tokenizer.bos_id(),
            0,
            "roles that it leaves out keep their usual tokens"
        );
    }

    #[test]
    fn few_continuations_mean_token_by_token() {
        let mut definition = fixture::definition();
        let vocabulary = definition["model"]["vocab"].as_object_mut().unwrap();
        vocabulary.retain(|token, _| !token.starts_with("##") || token.len() == 3);
        let folder = tempfile::tempdir().unwrap();
        fixture::write(folder.path(), &definition);
        let tokenizer = load(folder.path()).unwrap();
        assert!(!tokenizer.has_whole_words());
        assert!(tokenizer.starts_word(fixture::FIRST_CONTINUATION));
        assert!(
            !tokenizer.has_token(fixture::MASK - 1),
            "a hole in the vocabulary"
        );
    }

    #[test]
    fn what_is_no_tokenizer_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let text = load(folder.path()).unwrap_err().to_string();
        assert!(
            text.contains("tokenizer.json") && text.contains("save_pretrained"),
            "{text}"
        );
        let text = Tokenizer::load("some/hub-name").unwrap_err().to_string();
        assert!(
            text.contains("some/hub-name") && text.contains("mpnet tokenizer train"),
            "{text}"
        );
        for content in ["", "{}", "[1]", r#"{"model": {"type": "WordPiece"}}"#] {
            let file = folder.path().join("tokenizer.json");
            std::fs::write(&file, content).unwrap();
            let text = load(folder.path()).unwrap_err().to_string();
            assert!(text.contains(&file.display().to_string()), "{text}");
        }
        let mut definition = fixture::definition();
        definition["model"]["vocab"]["far"] = 4_000_000_000u32.into();
        fixture::write(folder.path(), &definition);
        let text = load(folder.path()).unwrap_err().to_string();
        assert!(text.contains("ids up to 4000000000"), "{text}");
    }

    #[test]
    fn saves_what_it_loaded() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fixture::write(from.path(), &fixture::definition());
        std::fs::write(from.path().join(CONFIG_FILE), r#"{"mask_token": "z"}"#).unwrap();
        let tokenizer = load(from.path()).unwrap();
        copy_tokenizer(tokenizer.path(), to.path()).unwrap();
        let again = load(to.path()).unwrap();
        assert_eq!(again.mask_id(), tokenizer.mask_id());
        assert_eq!(again.tokens, tokenizer.tokens);
    }

    #[test]
    fn another_vocabulary_or_role_is_another_tokenizer() {
        let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [a, b] = folders.each_ref().map(|f| f.path().join(TOKENIZER_FILE));
        let definition = fixture::definition();
        fixture::write(folders[0].path(), &definition);
        // The same definition in other words.
        std::fs::write(&b, format!("{definition:#}")).unwrap();
        assert!(same_tokenizer(&a, &b).unwrap());
        let config = b.with_file_name(CONFIG_FILE);
        std::fs::write(&config, r#"{"pad_token": "<pad>", "added": 1}"#).unwrap();
        assert!(same_tokenizer(&a, &b).unwrap());
        for other in [
            r#"{"mask_token": "z"}"#,
            r#"{"extra_special_tokens": ["z"]}"#,
        ] {
            std::fs::write(&config, other).unwrap();
            assert!(!same_tokenizer(&a, &b).unwrap(), "{other}");
        }
        std::fs::remove_file(&config).unwrap();
        let mut swapped = definition.clone();
        let vocabulary = swapped["model"]["vocab"].as_object_mut().unwrap();
        for (token, other) in [("a", "b"), ("b", "a")] {
            vocabulary.insert(token.into(), definition["model"]["vocab"][other].clone());
        }
        fixture::write(folders[1].path(), &swapped);
        assert!(!same_tokenizer(&a, &b).unwrap());
        std::fs::remove_file(&b).unwrap();
        assert!(same_tokenizer(&a, &b).is_err());
    }

    #[test]
    fn rows_equal_transformers() {
        let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/tokenizer");
        let tokenizer = Tokenizer::load(example).unwrap();
        // AutoTokenizer.from_pretrained("examples/tokenizer")(text, truncation=True, max_length=40)
        // of transformers 5.23.
        let long_word = format!("nebuchadnezzar's {} end", "a".repeat(101));
        let golden: [(&str, &[u32]); 3] = [
            (
                "In the beginning God created the heaven and the earth.",
                &[0, 98, 78, 1682, 159, 3485, 78, 477, 80, 78, 380, 11, 2],
            ),
            (
                "Thou SHALT not <mask>,thyself;  “naïve” Ωmega 12\t34\u{a0}x</s>y 中文ab",
                &[
                    0, 142, 312, 141, 4095, 9, 1061, 13, 4, 3369, 992, 4, 4, 4, 4, 38, 2, 39, 4, 4,
                    225, 2,
                ],
            ),
            (&long_word, &[0, 2177, 6, 33, 4, 581, 2]),
        ];
        for (text, ids) in golden {
            for _ in 0..2 {
                // The second time from the cache.
                assert_eq!(tokenizer.encode(text, 40).unwrap(), ids, "{text}");
            }
        }
    }
}
