//! One batch in the making: what of its rows can be predicted, what is, and what the model sees of it.

use mpnet_graphs::model::Objective;
use rand_chacha::ChaCha8Rng;

use super::{Batch, SPECIAL, Vocabulary, WORD_START};
use crate::data::error::{DataError, Result};
use crate::data::masking::{Limits, Masking, Shown, join_into_spans};
use crate::data::rng::{below, shuffle};

/// Space that is reused from batch to batch.
#[derive(Debug, Clone, Default)]
pub struct Scratch {
    /// Predictable positions of all rows, in text order.
    predictable: Vec<u32>,
    /// Real positions of all rows that are not predictable, in text order.
    protected: Vec<u32>,
    /// What is predicted together, words or spans of them, of all rows: start and end among the row's
    /// predictable positions.
    words: Vec<(u32, u32)>,
    /// Of one row, the lengths of its spans in words.
    lengths: Vec<u32>,
    /// Where each row's part of the three above ends.
    pub ends: Vec<RowEnd>,
    /// Of one row, which of its predictable tokens are predicted.
    taken: Vec<bool>,
    /// Of one row, the predicted positions in predicted order.
    chosen: Vec<u32>,
    /// Of one row, the masked copies.
    masked: Vec<i64>,
}

/// Where a row's part of what is kept of all rows ends.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowEnd {
    predictable: usize,
    protected: usize,
    words: usize,
}

/// What a batch's rows have in common.
pub struct Survey {
    /// L
    pub longest: usize,
    pub fewest_predictable: usize,
    /// Of the row that has the fewest, padding not counted; at least 2.
    pub fewest_tokens: usize,
    /// Of all rows, padding not counted.
    pub tokens: usize,
    /// Tokens that all rows would predict if each predicted its own share.
    pub own_shares: usize,
}

impl Scratch {
    /// Sorts every row's positions into predictable and protected ones and finds what is predicted
    /// together.
    pub fn survey<R: AsRef<[u32]>>(
        &mut self,
        vocabulary: &Vocabulary,
        rows: &[R],
        masking: &Masking,
        rng: &mut ChaCha8Rng,
    ) -> Result<Survey> {
        let max_gram = masking.max_gram;
        self.predictable.clear();
        self.protected.clear();
        self.words.clear();
        self.ends.clear();
        let mut survey = Survey {
            longest: 0,
            fewest_predictable: usize::MAX,
            fewest_tokens: usize::MAX,
            tokens: 0,
            own_shares: 0,
        };
        for (index, row) in rows.iter().enumerate() {
            let row = row.as_ref();
            let start = self.ends.last().copied().unwrap_or_default();
            self.survey_row(row, start, vocabulary, |class, _| class & SPECIAL == 0)?;
            if self.predictable.len() == start.predictable {
                // Nothing but special tokens: predict those rather than nothing.
                self.protected.truncate(start.protected);
                self.survey_row(row, start, vocabulary, |_, id| id != vocabulary.pad)?;
            }
            let tokens = row.iter().filter(|&&id| id != vocabulary.pad).count();
            if tokens < 2 {
                return Err(DataError::Collate {
                    problem: match tokens {
                        0 => format!("row {index} has no token but padding"),
                        _ => format!("row {index} has a single token, and none to predict it from"),
                    },
                });
            }
            if max_gram > 1 {
                join_into_spans(
                    &mut self.words,
                    start.words,
                    max_gram,
                    &mut self.lengths,
                    rng,
                );
            }
            self.ends.push(RowEnd {
                predictable: self.predictable.len(),
                protected: self.protected.len(),
                words: self.words.len(),
            });
            let predictable = self.predictable.len() - start.predictable;
            survey.longest = survey.longest.max(row.len());
            survey.fewest_predictable = survey.fewest_predictable.min(predictable);
            survey.fewest_tokens = survey.fewest_tokens.min(tokens);
            survey.tokens += tokens;
            survey.own_shares += masking.predicted_count(predictable);
        }
        if rows.is_empty() {
            return Err(DataError::Collate {
                problem: "there is no row to make it of".into(),
            });
        }
        Ok(survey)
    }

    fn survey_row(
        &mut self,
        row: &[u32],
        start: RowEnd,
        vocabulary: &Vocabulary,
        predictable: impl Fn(u8, u32) -> bool,
    ) -> Result<()> {
        for (position, &id) in row.iter().enumerate() {
            let Some(&class) = vocabulary.classes.get(id as usize) else {
                return Err(DataError::Collate {
                    problem: format!(
                        "token id {id} is not in the vocabulary of {} entries",
                        vocabulary.classes.len()
                    ),
                });
            };
            if !predictable(class, id) {
                self.protected.push(position as u32);
                continue;
            }
            let place = (self.predictable.len() - start.predictable) as u32;
            self.predictable.push(position as u32);
            // A row that opens with a continuation has its first word there all the same.
            match self.words.last_mut() {
                Some(word) if place > 0 && class & WORD_START == 0 => word.1 = place + 1,
                Some(_) | None => self.words.push((place, place + 1)),
            }
        }
        Ok(())
    }

    /// Draws the predicted tokens of one row into `chosen`, and marks them in `taken`.
    pub fn choose(&mut self, start: RowEnd, end: RowEnd, predicted: usize, rng: &mut ChaCha8Rng) {
        let positions = &self.predictable[start.predictable..end.predictable];
        let words = &mut self.words[start.words..end.words];
        self.taken.clear();
        self.taken.resize(positions.len(), false);
        self.chosen.clear();
        // A Fisher-Yates shuffle settles the last word first, so it can stop after P tokens. The word
        // at the cut gives its tail, as it does where all words are laid out and the last P are taken.
        let mut missing = predicted;
        for last in (0..words.len()).rev() {
            words.swap(last, below(rng, last as u32 + 1) as usize);
            let (from, to) = (words[last].0 as usize, words[last].1 as usize);
            let from = from.max(to.saturating_sub(missing));
            self.taken[from..to].fill(true);
            self.chosen.extend_from_slice(&positions[from..to]);
            missing -= to - from;
            if missing == 0 {
                break;
            }
        }
        shuffle(rng, &mut self.chosen);
    }

    /// Appends one permuted row to `input_ids`, `positions` and `targets`.
    pub fn write_row(
        &self,
        start: RowEnd,
        end: RowEnd,
        row: &[u32],
        vocabulary: &Vocabulary,
        batch: &mut Batch,
    ) {
        let protected = &self.protected[start.protected..end.protected];
        let predictable = &self.predictable[start.predictable..end.predictable];
        let pad = i64::from(vocabulary.pad);

        // Protected tokens, padding, tokens left in place, predicted tokens: L of them.
        let row_start = batch.positions.len();
        let positions = &mut batch.positions;
        positions.extend(protected.iter().map(|&p| i64::from(p)));
        positions.extend((row.len()..batch.length).map(|p| p as i64));
        let left = predictable.iter().zip(&self.taken);
        positions.extend(
            left.filter(|(_, taken)| !**taken)
                .map(|(&p, _)| i64::from(p)),
        );
        positions.extend(self.chosen.iter().map(|&p| i64::from(p)));

        batch.input_ids.extend(
            batch.positions[row_start..]
                .iter()
                .map(|&p| row.get(p as usize).map_or(pad, |&id| i64::from(id))),
        );
        let targets = self.chosen.iter().map(|&p| i64::from(row[p as usize]));
        batch.targets.extend(targets);
    }

    /// Draws what the model sees in the predicted tokens' places and puts it where the objective has
    /// it.
    pub fn show(
        &mut self,
        row: &[u32],
        vocabulary: &Vocabulary,
        masking: &Masking,
        limits: Limits,
        rng: &mut ChaCha8Rng,
        batch: &mut Batch,
    ) {
        let mask = i64::from(vocabulary.mask);
        self.masked.clear();
        match masking.objective {
            Objective::Plm => self.masked.resize(self.chosen.len(), mask),
            Objective::Mpnet | Objective::MpnetMlm | Objective::Mlm => {
                for &position in &self.chosen {
                    self.masked.push(match limits.draw(rng) {
                        Shown::Mask => mask,
                        Shown::Random => {
                            let pick = below(rng, vocabulary.replacements.len() as u32);
                            i64::from(vocabulary.replacements[pick as usize])
                        }
                        Shown::Own => i64::from(row[position as usize]),
                    });
                }
            }
        }
        if batch.copies == 0 {
            let first = batch.input_ids.len() - self.masked.len();
            batch.input_ids[first..].copy_from_slice(&self.masked);
        }
        for _ in 0..batch.copies {
            batch.input_ids.extend_from_slice(&self.masked);
            batch
                .positions
                .extend(self.chosen.iter().map(|&p| i64::from(p)));
        }
    }
}
