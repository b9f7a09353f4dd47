//! Trains a WordPiece tokenizer in MPNet's layout: `<s> <pad> </s> <unk>` first, `<mask>` last.

use std::collections::BTreeMap;
use std::fs::{File, rename};
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::json;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::{WordPiece, WordPieceTrainer};
use tokenizers::normalizers::bert::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::{
    AddedToken, NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString,
    PreTokenizer, Trainer,
};

use super::{CONFIG_FILE, TOKENIZER_FILE};
use crate::data::error::{DataError, Result};
use crate::data::source::{Sources, Texts};

const FIRST_TOKENS: [&str; 5] = ["<s>", "<pad>", "</s>", "<unk>", UNKNOWN];
/// The unknown token in use; `<unk>` only has its place in the layout.
const UNKNOWN: &str = "[UNK]";
const MASK: &str = "<mask>";
/// Characters beyond this many, the rarest, are left to the unknown token.
const MOST_CHARACTERS: usize = 1000;

/// Characters of the longest word: what is longer is unknown to the tokenizer as a whole, so that nothing is
/// learned of it. A single word of many thousand letters would take longer than all the rest.
const LONGEST_WORD: usize = 100;

/// How to train a tokenizer.
#[derive(Debug, Clone)]
pub struct TokenizerTraining {
    /// Entries of the vocabulary at most, special tokens included.
    pub vocab_size: usize,
    /// How often a piece must occur to become an entry.
    pub min_frequency: u64,
    /// Train on the first so many texts only.
    pub most_texts: Option<usize>,
    /// Lower-case the text and strip accents, as microsoft/mpnet-base does.
    pub uncased: bool,
    /// `model_max_length` of the tokenizer's configuration.
    pub max_tokens: usize,
}

/// A tokenizer that was trained and is not yet on disk.
pub struct TrainedTokenizer {
    inner: tokenizers::Tokenizer,
    options: TokenizerTraining,
}

impl TokenizerTraining {
    /// Trains on the texts of `sources`. The same text gives the same tokenizer.
    ///
    /// # Errors
    /// When a source can't be read or holds no word, or the vocabulary is too small for the characters of
    /// the text.
    pub fn train(&self, sources: &Sources) -> Result<TrainedTokenizer> {
        let failed = |e: tokenizers::Error| DataError::TokenizerTraining {
            problem: e.to_string(),
        };
        let normalizer = BertNormalizer::new(true, true, None, self.uncased);
        let mut trainer = WordPieceTrainer::builder()
            .vocab_size(self.vocab_size.saturating_sub(1)) // the mask token comes last
            .min_frequency(self.min_frequency)
            .limit_alphabet(0) // the characters are given as tokens below
            .show_progress(false)
            .build();

        let characters = Mutex::new(BTreeMap::<char, u64>::new());
        let mut rows = Rows {
            texts: sources.texts(),
            error: None,
        };
        let most = self.most_texts.unwrap_or(usize::MAX);
        trainer
            .feed(rows.by_ref().take(most), |text| {
                let words = words_of(text, &normalizer)?;
                let mut characters = characters.lock().unwrap_or_else(PoisonError::into_inner);
                for character in words.iter().flat_map(|word| word.chars()) {
                    *characters.entry(character).or_default() += 1;
                }
                Ok(words)
            })
            .map_err(failed)?;
        if let Some(error) = rows.error {
            return Err(error);
        }
        let characters = characters
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner);
        let alphabet = most_frequent(characters, MOST_CHARACTERS);
        if alphabet.is_empty() {
            return Err(DataError::TokenizerTraining {
                problem: format!("{} holds no word", sources.name()),
            });
        }
        // The trainer numbers what it meets in the order of a hash map; what it is given it keeps.
        let first: Vec<String> = (FIRST_TOKENS.iter().map(|t| (*t).to_owned()))
            .chain(alphabet.iter().map(char::to_string))
            .chain(alphabet.iter().map(|c| format!("##{c}")))
            .collect();
        if self.vocab_size <= first.len() {
            return Err(DataError::TokenizerTraining {
                problem: format!(
                    "a vocabulary of {} has no room for words beside the {} special tokens and single \
                     characters of this text; make it larger",
                    self.vocab_size,
                    first.len() + 1
                ),
            });
        }
        let given = first.into_iter().map(|token| AddedToken::from(token, true));
        trainer.set_special_tokens(given.collect());
        let mut model = WordPiece::default();
        trainer.train(&mut model).map_err(failed)?;
        Ok(TrainedTokenizer {
            inner: assemble(&model, normalizer).map_err(failed)?,
            options: self.clone(),
        })
    }
}

/// The texts of several files one after the other; stops at the first error and keeps it.
struct Rows<'s> {
    texts: Texts<'s>,
    error: Option<DataError>,
}

impl Iterator for Rows<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        match self.texts.next()? {
            Ok(text) => Some(text),
            Err(error) => {
                self.error = Some(error);
                None
            }
        }
    }
}

/// The words of a text as BERT's pre-tokenizer cuts them.
fn words_of(text: &str, normalizer: &BertNormalizer) -> tokenizers::Result<Vec<String>> {
    let mut normalized = NormalizedString::from(text);
    normalizer.normalize(&mut normalized)?;
    let mut cut = PreTokenizedString::from(normalized);
    BertPreTokenizer.pre_tokenize(&mut cut)?;
    let words = cut.get_splits(OffsetReferential::Original, OffsetType::None);
    Ok(words
        .into_iter()
        .filter(|(word, _, _)| word.chars().nth(LONGEST_WORD).is_none())
        .map(|(word, _, _)| word.to_owned())
        .collect())
}

/// The `most` most frequent characters, in the order of their code points.
fn most_frequent(counts: BTreeMap<char, u64>, most: usize) -> Vec<char> {
    let mut counts: Vec<(char, u64)> = counts.into_iter().collect();
    counts.sort_by_key(|&(character, count)| (std::cmp::Reverse(count), character));
    counts.truncate(most);
    let mut kept: Vec<char> = counts.into_iter().map(|(character, _)| character).collect();
    kept.sort_unstable();
    kept
}

/// The tokenizer around a trained vocabulary, with the mask token after its last entry.
fn assemble(
    model: &WordPiece,
    normalizer: BertNormalizer,
) -> tokenizers::Result<tokenizers::Tokenizer> {
    let mut vocabulary = tokenizers::Model::get_vocab(model);
    let mask = vocabulary.len() as u32;
    vocabulary.insert(MASK.into(), mask);
    let id = |token: &str| (token.to_owned(), vocabulary[token]);
    let processor = RobertaProcessing::new(id("</s>"), id("<s>"));
    let definition = json!({
        "type": "WordPiece",
        "unk_token": UNKNOWN,
        "continuing_subword_prefix": "##",
        "max_input_chars_per_word": LONGEST_WORD,
        "vocab": vocabulary,
    });
    let model: WordPiece = serde_json::from_str(&definition.to_string())?;
    let mut tokenizer = tokenizers::Tokenizer::new(model);
    tokenizer.with_normalizer(Some(normalizer))?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    tokenizer.with_post_processor(Some(processor));
    tokenizer.with_decoder(Some(WordPieceDecoder::default()));
    let special = ["<s>", "<pad>", "</s>", UNKNOWN, MASK];
    tokenizer.add_special_tokens(
        // "a <mask> b" is one text with one gap: the mask takes the space before it.
        special.map(|token| AddedToken::from(token, true).lstrip(token == MASK)),
    )?;
    Ok(tokenizer)
}

impl TrainedTokenizer {
    /// Entries of the vocabulary.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Writes `tokenizer.json` and `tokenizer_config.json` to `folder`, making it where it is missing.
    /// The first, which makes it a tokenizer, comes last, and each appears whole.
    ///
    /// # Errors
    /// When the folder or a file can't be written.
    pub fn save(&self, folder: &Path) -> Result<()> {
        let fail = |path: &Path| {
            let path = path.to_owned();
            move |source| DataError::Write { path, source }
        };
        std::fs::create_dir_all(folder).map_err(fail(folder))?;
        let config = json!({
            "backend": "tokenizers",
            "bos_token": "<s>",
            "cls_token": "<s>",
            "do_lower_case": self.options.uncased,
            "eos_token": "</s>",
            "mask_token": MASK,
            "model_max_length": self.options.max_tokens,
            "pad_token": "<pad>",
            "sep_token": "</s>",
            "strip_accents": null,
            "tokenize_chinese_chars": true,
            "tokenizer_class": "MPNetTokenizer",
            "unk_token": UNKNOWN,
        });
        let definition = self
            .inner
            .to_string(true)
            .map_err(|e| DataError::TokenizerTraining {
                problem: format!("can't be written as JSON: {e}"),
            })?;
        for (name, content) in [
            (CONFIG_FILE, format!("{config:#}\n")),
            (TOKENIZER_FILE, definition + "\n"),
        ] {
            let path = folder.join(name);
            let part = folder.join(format!(".{name}.part"));
            let written = write_synced(&part, &content).and_then(|()| rename(&part, &path));
            if let Err(source) = written {
                // The error that counts is the first one.
                drop(std::fs::remove_file(&part));
                return Err(fail(&path)(source));
            }
        }
        Ok(())
    }
}

fn write_synced(path: &Path, content: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::super::Tokenizer;
    use super::*;

    fn options(vocab_size: usize) -> TokenizerTraining {
        TokenizerTraining {
            vocab_size,
            min_frequency: 2,
            most_texts: None,
            uncased: true,
            max_tokens: 128,
        }
    }

    /// A text with enough words to make more than 100 continuations.
    fn text() -> String {
        let syllables = ["ka", "lo", "mi", "ne", "pu", "ra", "so", "ti", "vu", "ze"];
        let mut text = String::new();
        for i in 0..1000 {
            let word = [i / 100, i / 10 % 10, i % 10]
                .map(|s| syllables[s])
                .concat();
            text += &format!("The {word} went, and the {word} came.\n");
        }
        text
    }

    fn train(content: &str, options: &TokenizerTraining) -> Result<TrainedTokenizer> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("text.txt");
        std::fs::write(&file, content).unwrap();
        options.train(&Sources::local(&file, "text")?)
    }

    #[test]
    fn has_mpnets_layout_and_loads() {
        let trained = train(&text(), &options(400)).unwrap();
        assert_eq!(trained.vocab_size(), 400);
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("new/tokenizer");
        trained.save(&folder).unwrap();
        let names: Vec<_> = (std::fs::read_dir(&folder).unwrap())
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names.len(), 2, "{names:?}");

        let tokenizer = Tokenizer::load(folder.to_str().unwrap()).unwrap();
        let ids = |token: &str| (0..400).find(|&id| tokenizer.token(id) == Some(token));
        for (id, token) in FIRST_TOKENS.iter().enumerate() {
            assert_eq!(ids(token), Some(id as u32));
        }
        assert_eq!(tokenizer.vocab_size(), 400);
        assert_eq!(tokenizer.mask_id(), 399);
        assert_eq!(tokenizer.special_ids(), [0, 1, 2, 4, 399]);
        assert!(tokenizer.has_whole_words());
        let row = tokenizer.encode("THE café §", 16).unwrap();
        assert_eq!(row[1], ids("the").unwrap());
        assert_eq!(row[row.len() - 2], 4, "a character that was never seen");
    }

    #[test]
    fn same_text_same_bytes() {
        let saved = |trained: TrainedTokenizer| {
            let folder = tempfile::tempdir().unwrap();
            trained.save(folder.path()).unwrap();
            std::fs::read_to_string(folder.path().join(TOKENIZER_FILE)).unwrap()
        };
        let first = saved(train(&text(), &options(300)).unwrap());
        for _ in 0..5 {
            assert_eq!(saved(train(&text(), &options(300)).unwrap()), first);
        }
    }

    #[test]
    fn words_that_are_unknown_for_their_length_teach_nothing() {
        let vocabulary = |content: &str| {
            let trained = train(content, &options(300)).unwrap();
            trained.inner.get_vocab(true)
        };
        let expected = vocabulary(&text());
        let long = "zqzq".repeat(50_000);
        assert_eq!(vocabulary(&format!("{}{long}\n{long}\n", text())), expected);
        let longest = "\u{e9}q".repeat(50);
        let with = |word: &str| vocabulary(&format!("{}{word} {word}\n", text()));
        assert_ne!(with(&longest), expected);
        assert_eq!(with(&format!("{longest}q")), expected);
    }

    #[test]
    fn what_cannot_be_trained_is_an_error() {
        let message = |content: &str, vocab_size: usize| {
            let error = train(content, &options(vocab_size)).err().unwrap();
            error.to_string()
        };
        assert!(message(&text(), 20).contains("make it larger"));
        assert!(message(" \n", 400).contains("no word"));
    }

    #[test]
    fn the_first_texts_may_be_enough() {
        let first = |most_texts: usize| TokenizerTraining {
            most_texts: Some(most_texts),
            ..options(400)
        };
        let text = text();
        let few: Vec<&str> = text.lines().take(300).collect();
        let vocabulary = |trained: TrainedTokenizer| trained.inner.get_vocab(true);
        let expected = vocabulary(train(&few.join("\n"), &options(400)).unwrap());
        assert_eq!(vocabulary(train(&text, &first(300)).unwrap()), expected);
        assert_ne!(vocabulary(train(&text, &first(600)).unwrap()), expected);
        let none = train(&text, &first(0)).err().unwrap().to_string();
        assert!(none.contains("no word"), "{none}");
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        // A folder in the place of the file: renaming onto it fails.
        std::fs::create_dir_all(folder.path().join(TOKENIZER_FILE).join("x")).unwrap();
        let trained = train(&text(), &options(400)).unwrap();
        let error = trained.save(folder.path()).unwrap_err().to_string();
        assert!(error.contains(TOKENIZER_FILE), "{error}");
        let parts = std::fs::read_dir(folder.path()).unwrap();
        let parts = parts.filter(|e| e.as_ref().unwrap().path().extension().unwrap() == "part");
        assert_eq!(parts.count(), 0);
    }
}
