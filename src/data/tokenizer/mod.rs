//! A HuggingFace tokenizer from disk, with the roles of its special tokens and where words start.

pub mod check;
mod definition;
mod files;
pub mod training;
mod words;
mod written;

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::error::{DataError, Result};
use definition::{
    BOS, CONTINUATION, Definition, EOS, FEWEST_CONTINUATIONS, MASK, PAD, Role, UNK,
    splits_at_spaces,
};
use files::locate;
use words::WordCache;

pub use definition::same_tokenizer;
pub use files::copy_tokenizer;
pub use written::write_tokenizer;

/// The files that make up a tokenizer; only the first has to be there.
pub const TOKENIZER_FILES: [&str; 5] = [
    TOKENIZER_FILE,
    CONFIG_FILE,
    SPECIAL_TOKENS_FILE,
    "vocab.txt",
    "added_tokens.json",
];
/// The definition.
pub const TOKENIZER_FILE: &str = "tokenizer.json";
/// Its configuration in HuggingFace's words.
pub const CONFIG_FILE: &str = "tokenizer_config.json";
const SPECIAL_TOKENS_FILE: &str = "special_tokens_map.json";

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

/// What a model has to know of a tokenizer: how many entries it has, and the ids of the special ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vocabulary {
    pub size: usize,
    pub pad: i64,
    pub bos: i64,
    pub eos: i64,
    pub unk: i64,
    pub mask: i64,
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

    /// What a model has to know of it.
    pub fn vocabulary(&self) -> Vocabulary {
        Vocabulary {
            size: self.vocab_size(),
            pad: self.pad.into(),
            bos: self.bos.into(),
            eos: self.eos.into(),
            unk: self.unk.unwrap_or(self.mask).into(),
            mask: self.mask.into(),
        }
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

    /// Takes the likes of `<s>` and `<mask>` in a text for words in it, not for the tokens of that name:
    /// what someone wrote does not end a row or hide from attention.
    #[must_use]
    pub fn with_special_as_text(mut self) -> Self {
        self.inner.set_encode_special_tokens(true);
        self
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

#[cfg(test)]
mod tests;
