//! Turns token rows into a masked and permuted batch, as annotated-mpnet's collator does; for the other
//! input modes as microsoft/MPNet's does.
//!
//! Which tokens are predicted, in which order and how they are masked has the peer's distribution:
//! words in random order, the last P tokens of that order, shuffled once more. The tokens that are not
//! predicted stay in text order, since nothing downstream depends on theirs.

use std::sync::Arc;

use mpnet_graphs::model::Objective;
use rand_chacha::ChaCha8Rng;

use super::error::{DataError, Result};
use super::masking::{Limits, Masking, Shown, join_into_spans};
use super::rng::{below, shuffle};
use super::tokenizer::Tokenizer;

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

/// Space that is reused from batch to batch.
#[derive(Debug, Clone, Default)]
struct Scratch {
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
    ends: Vec<RowEnd>,
    /// Of one row, which of its predictable tokens are predicted.
    taken: Vec<bool>,
    /// Of one row, the predicted positions in predicted order.
    chosen: Vec<u32>,
    /// Of one row, the masked copies.
    masked: Vec<i64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct RowEnd {
    predictable: usize,
    protected: usize,
    words: usize,
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
        let max_gram = self.masking.max_gram;
        let survey = self.scratch.survey(&self.vocabulary, rows, max_gram, rng)?;
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

/// What a batch's rows have in common.
struct Survey {
    /// L
    longest: usize,
    fewest_predictable: usize,
    /// Of the row that has the fewest, padding not counted; at least 2.
    fewest_tokens: usize,
    /// Of all rows, padding not counted.
    tokens: usize,
}

impl Scratch {
    /// Sorts every row's positions into predictable and protected ones and finds what is predicted
    /// together.
    fn survey<R: AsRef<[u32]>>(
        &mut self,
        vocabulary: &Vocabulary,
        rows: &[R],
        max_gram: usize,
        rng: &mut ChaCha8Rng,
    ) -> Result<Survey> {
        self.predictable.clear();
        self.protected.clear();
        self.words.clear();
        self.ends.clear();
        let mut survey = Survey {
            longest: 0,
            fewest_predictable: usize::MAX,
            fewest_tokens: usize::MAX,
            tokens: 0,
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
    fn choose(&mut self, start: RowEnd, end: RowEnd, predicted: usize, rng: &mut ChaCha8Rng) {
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
    fn write_row(
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
    fn show(
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

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::super::rng::{Purpose, keyed};
    use super::*;
    use proptest::prelude::*;

    const PAD: i64 = 1;

    fn rng(seed: u64) -> ChaCha8Rng {
        keyed(seed, Purpose::Training, 0, 0)
    }

    fn continues(id: u32) -> bool {
        (fixture::FIRST_CONTINUATION..fixture::MASK).contains(&id)
    }

    /// Rows as a tokenizer makes them: `<s>`, words with now and then an unknown one, `</s>`.
    fn rows() -> impl Strategy<Value = Vec<Vec<u32>>> {
        let letter = 0..26u32;
        let word = (letter, prop::collection::vec(0..130u32, 0..5), 0..12u8).prop_map(
            |(first, rest, kind)| match kind {
                0 => vec![fixture::UNK],
                _ => std::iter::once(fixture::FIRST_LETTER + first)
                    .chain(rest.iter().map(|r| fixture::FIRST_CONTINUATION + r))
                    .collect(),
            },
        );
        let row = prop::collection::vec(word, 0..30)
            .prop_map(|words| [vec![0], words.concat(), vec![2]].concat());
        prop::collection::vec(row, 1..6)
    }

    /// Positions of the row that may be predicted.
    fn predictable(row: &[u32], is_special: impl Fn(u32) -> bool) -> Vec<usize> {
        let plain: Vec<usize> = (0..row.len()).filter(|&p| !is_special(row[p])).collect();
        if plain.is_empty() {
            (0..row.len()).collect()
        } else {
            plain
        }
    }

    /// Every objective with every kind of option.
    fn maskings() -> impl Strategy<Value = Masking> {
        (
            prop::sample::select(Objective::ALL.to_vec()),
            prop_oneof![Just(0.15), 0.01..1.0, Just(1.0)],
            0.0..0.5,
            0.0..0.5,
            // Token by token, whole words, spans of words.
            0..5usize,
        )
            .prop_map(
                |(objective, pred_prob, keep_prob, rand_prob, gram)| Masking {
                    objective,
                    pred_prob,
                    keep_prob,
                    rand_prob,
                    whole_words: gram > 0,
                    max_gram: gram.max(1),
                },
            )
    }

    proptest! {
        #[test]
        fn batches_hold_what_they_must(rows in rows(), masking in maskings(), seed in any::<u64>()) {
            let tokenizer = fixture::tokenizer();
            let mut collator = Collator::new(&tokenizer, &masking).unwrap();
            let batch = collator.collate(&rows, &mut rng(seed)).unwrap();
            let (l, p, width) = (batch.length, batch.predicted, batch.width());
            let can: Vec<_> = rows.iter().map(|r| predictable(r, |id| tokenizer.is_special(id))).collect();

            prop_assert_eq!(l, rows.iter().map(Vec::len).max().unwrap());
            // The formula, but for rows of special tokens alone: one of those is left.
            let formula = masking.predicted_count(can.iter().map(Vec::len).min().unwrap());
            prop_assert_eq!(p, formula.min(rows.iter().map(Vec::len).min().unwrap() - 1));
            let copies = match masking.objective {
                Objective::Mpnet | Objective::MpnetMlm => 2,
                Objective::Plm => 1,
                Objective::Mlm => 0,
            };
            prop_assert_eq!(width, l + copies * p);
            prop_assert_eq!(batch.input_ids.len(), rows.len() * width);
            prop_assert_eq!(batch.positions.len(), rows.len() * width);
            prop_assert_eq!(batch.attention_mask.len(), rows.len() * width);
            prop_assert_eq!(batch.targets.len(), rows.len() * p);
            prop_assert_eq!(batch.tokens, rows.iter().map(Vec::len).sum::<usize>());
            prop_assert_eq!(batch.predicted_tokens, rows.len() * p);

            for (r, row) in rows.iter().enumerate() {
                let ids = &batch.input_ids[r * width..][..width];
                let positions = &batch.positions[r * width..][..width];
                let mask = &batch.attention_mask[r * width..][..width];
                let targets = &batch.targets[r * p..][..p];

                // A permutation of the padded row, protected positions first and in order; mlm shows its
                // predicted tokens masked there.
                let mut sorted = positions[..l].to_vec();
                sorted.sort_unstable();
                prop_assert!(sorted.iter().copied().eq(0..l as i64));
                let shown = if copies == 0 { l - p } else { l };
                for (&id, &position) in ids[..shown].iter().zip(positions) {
                    prop_assert_eq!(id, row.get(position as usize).map_or(PAD, |&id| i64::from(id)));
                }
                let protected: Vec<i64> =
                    (0..l).filter(|position| !can[r].contains(position)).map(|p| p as i64).collect();
                prop_assert_eq!(&positions[..protected.len()], &protected[..]);

                // Predicted tokens: predictable, whole words but for the one that is cut to its tail.
                let predicted = &positions[l - p..l];
                for (&position, &target) in predicted.iter().zip(targets) {
                    prop_assert!(can[r].contains(&(position as usize)));
                    prop_assert_eq!(target, i64::from(row[position as usize]));
                }
                let mut cut = 0;
                for pair in can[r].windows(2) {
                    if continues(row[pair[1]]) && masking.whole_words {
                        let [head, tail] = [pair[0], pair[1]].map(|p| predicted.contains(&(p as i64)));
                        prop_assert!(tail || !head, "a word is cut at its front only");
                        cut += usize::from(tail && !head);
                    }
                }
                prop_assert!(cut <= 1, "{cut} words are cut");

                // What is shown for them: equal copies at their positions.
                let first = if copies == 0 { l - p } else { l };
                let seen = &ids[first..first + p];
                for copy in 0..copies {
                    prop_assert_eq!(&ids[l + copy * p..][..p], seen);
                    prop_assert_eq!(&positions[l + copy * p..][..p], predicted);
                }
                for (&copy, &target) in seen.iter().zip(targets) {
                    let copy = copy as u32;
                    let plain = i64::from(copy) == target || !tokenizer.is_special(copy);
                    prop_assert!(
                        copy == fixture::MASK || (masking.objective != Objective::Plm && plain)
                    );
                }
                for (&id, &seen) in ids.iter().zip(mask) {
                    prop_assert_eq!(seen, i64::from(id != PAD));
                }
            }
        }

        #[test]
        fn content_depends_on_rows_and_key_only(
            rows in rows(), masking in maskings(), seed in any::<u64>(),
        ) {
            let mut used = Collator::new(&fixture::tokenizer(), &masking).unwrap();
            used.collate(&[vec![0, 7, 8, 9, 40, 41, 2]], &mut rng(seed ^ 1)).unwrap();
            let fresh = used.clone().collate(&rows, &mut rng(seed)).unwrap();
            prop_assert_eq!(used.collate(&rows, &mut rng(seed)).unwrap(), fresh);
        }

        /// The objectives differ in what is shown alone: they predict the same tokens.
        #[test]
        fn objectives_predict_the_same_tokens_of_one_row(seed in any::<u64>()) {
            let row: Vec<u32> = [vec![0], (0..20).map(|i| 5 + i).collect(), vec![2]].concat();
            let targets = Objective::ALL.map(|objective| {
                let masking = Masking { objective, ..Masking::default() };
                let mut collator = Collator::new(&fixture::tokenizer(), &masking).unwrap();
                collator.collate(&[&row], &mut rng(seed)).unwrap().targets
            });
            prop_assert!(targets.iter().all(|t| *t == targets[0]));
        }
    }

    /// Shares of 10^6 predicted tokens: masked, replaced by each token, kept.
    fn check_shares(masking: &Masking) {
        let tokenizer = fixture::tokenizer();
        let mut collator = Collator::new(&tokenizer, masking).unwrap();
        let mut rng = rng(3);
        // Word-start tokens only, all alike, so that a copy that differs is a replacement.
        let own = fixture::FIRST_LETTER;
        let row = [vec![0], vec![own; 500], vec![2]].concat();
        let rows = vec![row; 64];
        let mut counts = vec![0f64; tokenizer.vocab_size()];
        let mut all = 0f64;
        while all < 1e6 {
            let batch = collator.collate(&rows, &mut rng).unwrap();
            let (width, p) = (batch.width(), batch.predicted);
            for ids in batch.input_ids.chunks(width) {
                ids[width - p..]
                    .iter()
                    .for_each(|&id| counts[id as usize] += 1.0);
                all += p as f64;
            }
        }
        let replaceable: Vec<u32> = (0..tokenizer.vocab_size() as u32)
            .filter(|&id| !tokenizer.is_special(id))
            .collect();
        // Five standard deviations of a share over 10^6 draws.
        let close =
            |share: f64, to: f64| (share - to).abs() <= 5.0 * (to * (1.0 - to) / all).sqrt();
        let masked = 1.0 - masking.rand_prob - masking.keep_prob;
        assert!(close(counts[fixture::MASK as usize] / all, masked));
        let each = masking.rand_prob / replaceable.len() as f64;
        assert!(close(counts[own as usize] / all, masking.keep_prob + each));
        for id in 0..tokenizer.vocab_size() as u32 {
            let share = counts[id as usize] / all;
            if id == fixture::MASK || id == own {
                continue;
            } else if tokenizer.is_special(id) {
                assert_eq!(share, 0.0, "special token {id} was put in at random");
            } else {
                assert!(close(share, each), "token {id}: {share}");
            }
        }
    }

    #[test]
    fn masks_eighty_ten_ten_and_picks_replacements_evenly() {
        check_shares(&Masking::default());
    }

    #[test]
    fn masks_as_the_options_say() {
        for (objective, keep_prob, rand_prob) in [
            (Objective::Mlm, 0.1, 0.1),
            (Objective::Mpnet, 0.0, 0.5),
            (Objective::Mpnet, 0.75, 0.25),
            (Objective::MpnetMlm, 0.0, 0.0),
        ] {
            check_shares(&Masking {
                objective,
                keep_prob,
                rand_prob,
                ..Masking::default()
            });
        }
    }

    #[test]
    fn spans_of_words_are_predicted_together() {
        // Of 30 one-token words up to 3 together: 3 spans of 3, 5 of 2, 11 words alone, so 19 spans. The
        // 15 predicted tokens are then in fewer runs than words alone would be.
        let row: Vec<u32> = [vec![0], vec![fixture::FIRST_LETTER; 30], vec![2]].concat();
        let rows = vec![row; 200];
        let runs = |max_gram: usize| {
            let masking = Masking {
                max_gram,
                pred_prob: 0.5,
                ..Masking::default()
            };
            let mut collator = Collator::new(&fixture::tokenizer(), &masking).unwrap();
            let batch = collator.collate(&rows, &mut rng(8)).unwrap();
            assert_eq!(batch.predicted, 15);
            let mut runs = 0;
            for positions in batch.positions.chunks(batch.width()) {
                let predicted = &positions[batch.length - 15..batch.length];
                let starts = |p: &&i64| !predicted.contains(&(**p - 1));
                runs += predicted.iter().filter(starts).count();
            }
            runs as f64 / rows.len() as f64
        };
        // Words alone: 15 · 16 / 30 on average.
        assert!((runs(1) - 8.0).abs() < 0.3, "{}", runs(1));
        assert!(runs(3) < 6.5, "{}", runs(3));
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        let masking = Masking {
            pred_prob: 0.0,
            ..Masking::default()
        };
        let error = Collator::new(&fixture::tokenizer(), &masking).unwrap_err();
        assert!(error.to_string().contains("--pred-prob 0"), "{error}");
    }

    #[test]
    fn every_word_is_predicted_as_often_and_every_order_comes() {
        let mut collator = Collator::new(&fixture::tokenizer(), &Masking::default()).unwrap();
        let mut rng = rng(4);
        // 20 one-token words: P = 3, so each is predicted in 15 % of the rows, in each place as often.
        let row: Vec<u32> = [vec![0], (0..20).map(|i| 5 + i).collect(), vec![2]].concat();
        let (rows, rounds) = (vec![row; 100], 600);
        let mut counts = [[0f64; 3]; 20];
        for _ in 0..rounds {
            let batch = collator.collate(&rows, &mut rng).unwrap();
            for targets in batch.targets.chunks(3) {
                for (place, &id) in targets.iter().enumerate() {
                    counts[id as usize - 5][place] += 1.0;
                }
            }
        }
        let expected = f64::from(rounds) * 100.0 / 20.0;
        let chi2: f64 = counts
            .iter()
            .flatten()
            .map(|count| (count - expected).powi(2) / expected)
            .sum();
        assert!(chi2 < 100.0, "chi-square of 57 degrees of freedom: {chi2}"); // p = 0.0004
    }

    #[test]
    fn rows_without_plain_tokens_fall_back_to_their_special_ones() {
        let mut collator = Collator::new(&fixture::tokenizer(), &Masking::default()).unwrap();
        let rows = [vec![0, 2], vec![0, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 2]];
        let batch = collator.collate(&rows, &mut rng(5)).unwrap();
        assert_eq!(batch.predicted, 1, "2 tokens to predict from give P = 1");
        assert!([0, 2].contains(&batch.targets[0]));
        assert_eq!(
            batch.positions[..10],
            [2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
            "padding is protected"
        );
    }

    #[test]
    fn what_is_no_row_is_an_error() {
        let mut collator = Collator::new(&fixture::tokenizer(), &Masking::default()).unwrap();
        let none: [Vec<u32>; 0] = [];
        let mut message =
            |rows: &[Vec<u32>]| collator.collate(rows, &mut rng(6)).unwrap_err().to_string();
        assert!(message(&none).contains("no row"));
        assert!(message(&[vec![0, 5, 2], vec![]]).contains("row 1 has no token"));
        assert!(message(&[vec![1, 1]]).contains("no token but padding"));
        assert!(message(&[vec![0, 1]]).contains("row 0 has a single token"));
        assert!(message(&[vec![0, 9999, 2]]).contains("9999"));
    }
}
