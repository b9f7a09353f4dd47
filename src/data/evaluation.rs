//! Validation and test text as batches whose masking is the same at every evaluation.

use super::collator::{Batch, Collator};
use super::error::{DataError, Result};
use super::loader::batch_problem;
use super::masking::Masking;
use super::rng::{Purpose, keyed};
use super::source::Sources;
use super::tokenizer::Tokenizer;
use crate::launch::Share;

/// Texts read and tokenized a moment at a time while a set is opened.
const READ_AT_ONCE: usize = 1024;

/// Evaluation text, tokenized once: 4 bytes of memory a token.
#[derive(Debug)]
pub struct EvaluationSet {
    rows: Vec<Vec<u32>>,
    collator: Collator,
    batch_size: usize,
    seed: u64,
}

impl EvaluationSet {
    /// Reads and tokenizes all texts, in order, at most `max_tokens` tokens each.
    ///
    /// # Errors
    /// When a text can't be read, there is none or none with a token, or [`batch_problem`] finds one.
    pub fn open(
        sources: &Sources,
        tokenizer: &Tokenizer,
        batch_size: usize,
        max_tokens: usize,
        seed: u64,
        masking: &Masking,
    ) -> Result<Self> {
        let texts = sources.texts();
        Self::new(
            sources.name(),
            texts,
            tokenizer,
            batch_size,
            max_tokens,
            seed,
            masking,
        )
    }

    /// Tokenizes `texts`, which are `name` to the user.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn new(
        name: &str,
        mut texts: impl Iterator<Item = Result<String>>,
        tokenizer: &Tokenizer,
        batch_size: usize,
        max_tokens: usize,
        seed: u64,
        masking: &Masking,
    ) -> Result<Self> {
        if let Some(problem) = batch_problem(batch_size, None, max_tokens) {
            return Err(DataError::Loader { problem });
        }
        let mut rows = Vec::new();
        loop {
            let some: Vec<String> = texts.by_ref().take(READ_AT_ONCE).collect::<Result<_>>()?;
            if some.is_empty() {
                break;
            }
            rows.extend(tokenizer.encode_batch(&some, max_tokens)?);
        }
        if rows.is_empty() {
            return Err(DataError::NoText {
                name: name.to_owned(),
                shortest: 0,
            });
        }
        // Beside <s> and </s>.
        if rows.iter().all(|row| row.len() <= 2) {
            return Err(DataError::NoTokens {
                name: name.to_owned(),
            });
        }
        Ok(Self {
            rows,
            collator: Collator::new(tokenizer, masking)?,
            batch_size,
            seed,
        })
    }

    /// How many texts the set has.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// How many batches: the last may have fewer rows.
    pub fn batch_count(&self) -> usize {
        self.rows.len().div_ceil(self.batch_size)
    }

    /// The batches of `share` in order, each with its number; every call gives the same.
    pub fn batches(&self, share: Share) -> impl Iterator<Item = (usize, Result<Batch>)> + '_ {
        let mut collator = self.collator.clone();
        let groups = self.rows.chunks(self.batch_size).enumerate();
        let groups = groups.filter(move |(index, _)| share.has(*index));
        groups.map(move |(index, rows)| {
            let mut rng = keyed(self.seed, Purpose::Evaluation, 0, index as u64);
            (index, collator.collate(rows, &mut rng))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    fn open(content: &str, batch_size: usize, seed: u64) -> Result<EvaluationSet> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("valid.txt");
        std::fs::write(&path, content).unwrap();
        let sources = Sources::local(&path, "text")?;
        let masking = Masking::default();
        EvaluationSet::open(
            &sources,
            &fixture::tokenizer(),
            batch_size,
            32,
            seed,
            &masking,
        )
    }

    #[test]
    fn every_evaluation_sees_the_same_batches() {
        let text = "some words to evaluate\n".repeat(7);
        let set = open(&text, 3, 1).unwrap();
        let all = |set: &EvaluationSet, share| -> Vec<(usize, Batch)> {
            let batches = set.batches(share);
            batches
                .map(|(index, batch)| (index, batch.unwrap()))
                .collect()
        };
        let numbered = all(&set, Share::ALL);
        let mut shared = all(&set, Share { rank: 0, world: 2 });
        shared.insert(1, all(&set, Share { rank: 1, world: 2 }).remove(0));
        assert_eq!(shared, numbered, "ranks share them");
        let first: Vec<Batch> = numbered.into_iter().map(|(_, batch)| batch).collect();
        let second: Vec<Batch> = shared.into_iter().map(|(_, batch)| batch).collect();
        assert_eq!(first, second);
        assert_eq!((set.rows(), set.batch_count(), first.len()), (7, 3, 3));
        assert_eq!(first.iter().map(|b| b.rows).collect::<Vec<_>>(), [3, 3, 1]);
        assert_ne!(
            first[0].targets, first[1].targets,
            "each batch draws its own"
        );
        let other = open(&text, 3, 2).unwrap();
        let other: Vec<Batch> = all(&other, Share::ALL)
            .into_iter()
            .map(|(_, batch)| batch)
            .collect();
        assert_ne!(first, other, "another seed masks other tokens");
    }

    #[test]
    fn blank_files_and_empty_batches_are_errors() {
        let text = open("\n  \n", 3, 1).unwrap_err().to_string();
        assert!(
            text.contains("holds no text") && text.contains("valid.txt"),
            "{text}"
        );
        let text = open("word\n", 0, 1).unwrap_err().to_string();
        assert!(text.contains("batch_size"), "{text}");
    }
}
