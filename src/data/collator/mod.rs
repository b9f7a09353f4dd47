//! Turns token rows into a masked and permuted batch, as annotated-mpnet's collator does; for the other
//! input modes as microsoft/MPNet's does.
//!
//! Which tokens are predicted, in which order and how they are masked has the peer's distribution:
//! words in random order, the last P tokens of that order, shuffled once more. The tokens that are not
//! predicted stay in text order, since nothing downstream depends on theirs.

mod scratch;

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::error::{DataError, Result};
use super::masking::{Limits, Masking};
use super::tokenizer::Tokenizer;
use scratch::{RowEnd, Scratch};

const SPECIAL: u8 = 1;
const WORD_START: u8 = 2;

/// One micro-batch, row-major. B rows, L tokens a row (padded), P predicted tokens a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// B
    pub rows: usize,
    /// L
    pub length: usize,
    /// P
    pub predicted: usize,
    /// How often the predicted tokens stand behind the row once more: 2, `plm` 1, `mlm` 0.
    pub copies: usize,
    /// `mpnet`: permuted row, masked copies of its last P, the same copies again. `plm`: permuted row,
    /// P times the mask. `mlm`: permuted row, the last P of it masked.
    pub input_ids: Vec<i64>, // [B, L + copies·P]
    /// Position in the text of each of those, from 0.
    pub positions: Vec<i64>, // [B, L + copies·P]
    /// True ids of the last P of the permuted row.
    pub targets: Vec<i64>, // [B, P]
    /// 1 where the id is not padding.
    pub attention_mask: Vec<i64>, // [B, L + copies·P]
    /// Tokens of the rows that are not padding, special ones included.
    pub tokens: usize,
    /// Targets that are not padding: what the loss is divided by.
    pub predicted_tokens: usize,
    /// Tokens that would be predicted if each row predicted its own share, and not that of the batch's
    /// shortest row.
    pub own_shares: usize,
}

impl Batch {
    /// Tokens a row of `input_ids`: L + copies·P.
    pub fn width(&self) -> usize {
        self.length + self.copies * self.predicted
    }
}

/// What the collator has to know of the vocabulary; shared by its clones.
#[derive(Debug)]
struct Vocabulary {
    pad: u32,
    mask: u32,
    /// `SPECIAL` and `WORD_START` bits of each id.
    classes: Vec<u8>,
    /// Every id that a masked copy may get at random: tokens of the vocabulary that are not special.
    replacements: Vec<u32>,
}

/// Makes batches; a clone shares the vocabulary and has its own scratch space.
#[derive(Debug, Clone)]
pub struct Collator {
    vocabulary: Arc<Vocabulary>,
    masking: Masking,
    limits: Limits,
    scratch: Scratch,
}

impl Collator {
    /// A collator for the vocabulary of `tokenizer`.
    ///
    /// # Errors
    /// When the options make no sense, or when every token of the vocabulary is special, so that none
    /// can stand in at random.
    pub fn new(tokenizer: &Tokenizer, masking: &Masking) -> Result<Self> {
        if let Some(problem) = masking.problem() {
            return Err(DataError::Collate { problem });
        }
        let mut classes = vec![0; tokenizer.vocab_size()];
        let mut replacements = Vec::with_capacity(classes.len());
        for (id, class) in classes.iter_mut().enumerate() {
            let id = id as u32;
            if tokenizer.is_special(id) {
                *class |= SPECIAL;
            } else if tokenizer.has_token(id) {
                replacements.push(id);
            }
            if tokenizer.starts_word(id) || !masking.whole_words {
                *class |= WORD_START;
            }
        }
        if replacements.is_empty() {
            return Err(DataError::Collate {
                problem: "the tokenizer's vocabulary has special tokens only".into(),
            });
        }
        Ok(Self {
            vocabulary: Arc::new(Vocabulary {
                pad: tokenizer.pad_id(),
                mask: tokenizer.mask_id(),
                classes,
                replacements,
            }),
            limits: masking.limits(),
            masking: masking.clone(),
            scratch: Scratch::default(),
        })
    }

    /// One batch of `rows` (token ids with `<s>` and `</s>`, no padding), its choices drawn from `rng`.
    ///
    /// # Errors
    /// When there is no row, a row has fewer than two tokens, or an id is not in the vocabulary.
    pub fn collate<R: AsRef<[u32]>>(&mut self, rows: &[R], rng: &mut ChaCha8Rng) -> Result<Batch> {
        let masking = &self.masking;
        let survey = self.scratch.survey(&self.vocabulary, rows, masking, rng)?;
        let length = survey.longest;
        // A row that has special tokens alone keeps one to be predicted from.
        let predicted = self.masking.predicted_count(survey.fewest_predictable);
        let predicted = predicted.min(survey.fewest_tokens - 1);
        let vocabulary = &*self.vocabulary;
        let (scratch, masking) = (&mut self.scratch, &self.masking);

        let copies = masking.objective.copies();
        let width = length + copies * predicted;
        let mut batch = Batch {
            rows: rows.len(),
            length,
            predicted,
            copies,
            input_ids: Vec::with_capacity(rows.len() * width),
            positions: Vec::with_capacity(rows.len() * width),
            targets: Vec::with_capacity(rows.len() * predicted),
            attention_mask: Vec::with_capacity(rows.len() * width),
            tokens: survey.tokens,
            predicted_tokens: 0,
            own_shares: survey.own_shares,
        };
        let mut start = RowEnd::default();
        for (index, row) in rows.iter().enumerate() {
            let (row, end) = (row.as_ref(), scratch.ends[index]);
            scratch.choose(start, end, predicted, rng);
            scratch.write_row(start, end, row, vocabulary, &mut batch);
            scratch.show(row, vocabulary, masking, self.limits, rng, &mut batch);
            start = end;
        }
        let pad = i64::from(vocabulary.pad);
        batch
            .attention_mask
            .extend(batch.input_ids.iter().map(|&id| i64::from(id != pad)));
        batch.predicted_tokens = batch.targets.iter().filter(|&&id| id != pad).count();
        Ok(batch)
    }
}

#[cfg(test)]
mod tests;
