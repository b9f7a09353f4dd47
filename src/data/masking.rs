//! Which tokens of a batch are predicted and what stands in their place: the options of the original.

use mpnet_graphs::ir::{Bindings, Symbol};
use mpnet_graphs::model::Objective;
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::rng::shuffle;

/// Microsoft/MPNet's options of its data, with their defaults there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Masking {
    #[serde(flatten)]
    pub objective: Objective,
    /// Share of the predictable tokens that is predicted, above 0.
    pub pred_prob: f64,
    /// Share of the predicted tokens that the model sees as they are.
    pub keep_prob: f64,
    /// Share of the predicted tokens that the model sees as another token.
    pub rand_prob: f64,
    /// Predict words rather than tokens.
    pub whole_words: bool,
    /// Predict up to this many consecutive words together.
    pub max_gram: usize,
}

impl Default for Masking {
    fn default() -> Self {
        Self {
            objective: Objective::Mpnet,
            pred_prob: 0.15,
            keep_prob: 0.1,
            rand_prob: 0.1,
            whole_words: true,
            max_gram: 1,
        }
    }
}

impl Masking {
    /// What is wrong with these options, if anything is.
    pub fn problem(&self) -> Option<String> {
        let Self {
            pred_prob,
            keep_prob,
            rand_prob,
            ..
        } = *self;
        if !(pred_prob > 0.0 && pred_prob <= 1.0) {
            return Some(format!(
                "pred_prob {pred_prob} is not above 0 and at most 1"
            ));
        }
        for (field, value) in [("keep_prob", keep_prob), ("rand_prob", rand_prob)] {
            if !(0.0..=1.0).contains(&value) {
                return Some(format!("{field} {value} is not at least 0 and at most 1"));
            }
        }
        if keep_prob + rand_prob > 1.0 {
            return Some(format!(
                "keep_prob {keep_prob} and rand_prob {rand_prob} are more than 1 together"
            ));
        }
        if self.max_gram == 0 {
            return Some("max_gram 0 leaves nothing to predict: take 1 or more".into());
        }
        if self.max_gram > 1 && !self.whole_words {
            return Some(format!(
                "max_gram {} is a number of whole words, but single tokens are predicted (whole_words)",
                self.max_gram
            ));
        }
        None
    }

    /// The sizes of a batch of that many full rows.
    pub fn batch_sizes(&self, rows: usize, tokens: usize) -> Bindings {
        Bindings::new([
            (Symbol::BATCH, rows),
            (Symbol::LENGTH, tokens),
            // Begin and end are not predicted.
            (
                Symbol::PREDICTED,
                self.predicted_count(tokens.saturating_sub(2)),
            ),
        ])
    }

    /// How many tokens a row predicts when its batch's poorest row has `predictable` of them:
    /// `max(1, pred_prob × predictable rounded half to even)`, never more than there are.
    pub fn predicted_count(&self, predictable: usize) -> usize {
        let share = (predictable as f64 * self.pred_prob).round_ties_even() as usize;
        share.max(1).min(predictable)
    }

    /// The shares as limits of a draw.
    pub(super) fn limits(&self) -> Limits {
        let limit = |share: f64| (share * 4_294_967_296.0) as u64;
        Limits {
            mask: limit(1.0 - self.rand_prob - self.keep_prob),
            random: limit(1.0 - self.keep_prob),
        }
    }
}

/// Of 2^32 draws, below which one a predicted token is masked, and below which one replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    mask: u64,
    random: u64,
}

/// What the model sees in a predicted token's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Mask,
    Random,
    Own,
}

impl Limits {
    /// Draws what stands in one token's place.
    #[inline]
    pub(super) fn draw(self, rng: &mut ChaCha8Rng) -> Shown {
        let draw = u64::from(rng.next_u32());
        if draw < self.mask {
            Shown::Mask
        } else if draw < self.random {
            Shown::Random
        } else {
            Shown::Own
        }
    }
}

/// Joins `words` into spans of up to `max_gram` of them in random order of lengths, as
/// microsoft/MPNet's templates do: of n words floor(n / (max_gram · j)) spans have j words, for every
/// j above 1, and the words that are left stand alone.
pub(super) fn join_into_spans(
    words: &mut Vec<(u32, u32)>,
    first: usize,
    max_gram: usize,
    lengths: &mut Vec<u32>,
    rng: &mut ChaCha8Rng,
) {
    let count = words.len() - first;
    lengths.clear();
    let mut alone = count;
    for words in (2..=max_gram.min(count)).rev() {
        let spans = count / max_gram / words;
        lengths.extend(std::iter::repeat_n(words as u32, spans));
        alone -= spans * words;
    }
    lengths.extend(std::iter::repeat_n(1, alone));
    shuffle(rng, lengths);
    let (mut from, mut to) = (first, first);
    for &length in lengths.iter() {
        let last = from + length as usize - 1;
        words[to] = (words[from].0, words[last].1);
        from = last + 1;
        to += 1;
    }
    words.truncate(to);
}

#[cfg(test)]
mod tests {
    use super::super::rng::{Purpose, keyed};
    use super::*;

    #[test]
    fn predicted_count_is_pythons() {
        // max(1, round(0.15 * n)) in Python; exact halves go to the even number.
        let table = [
            (1, 1),
            (3, 1),
            (9, 1),
            (10, 2),
            (11, 2),
            (16, 2),
            (17, 3),
            (30, 4),
            (31, 5),
            (50, 8),
            (70, 10),
            (90, 14),
            (110, 16),
            (126, 19),
            (130, 20),
            (150, 22),
            (510, 76),
        ];
        let masking = Masking::default();
        for (predictable, predicted) in table {
            let found = masking.predicted_count(predictable);
            assert_eq!(found, predicted, "{predictable}");
        }
        let all = Masking {
            pred_prob: 1.0,
            ..masking
        };
        assert_eq!(all.predicted_count(7), 7);
    }

    #[test]
    fn options_that_make_no_sense_are_named() {
        let problem = |change: fn(&mut Masking)| {
            let mut masking = Masking::default();
            change(&mut masking);
            masking.problem().unwrap_or_default()
        };
        assert_eq!(problem(|_| {}), "");
        assert_eq!(problem(|m| m.pred_prob = 1.0), "");
        assert_eq!(problem(|m| (m.keep_prob, m.rand_prob) = (0.5, 0.5)), "");
        assert!(problem(|m| m.pred_prob = 0.0).starts_with("pred_prob 0 is not"));
        assert!(problem(|m| m.pred_prob = f64::NAN).contains("pred_prob NaN"));
        assert!(problem(|m| m.keep_prob = -0.1).contains("keep_prob -0.1"));
        assert!(problem(|m| m.rand_prob = 1.5).contains("rand_prob 1.5"));
        assert!(problem(|m| m.rand_prob = 0.95).contains("more than 1 together"));
        assert!(problem(|m| m.max_gram = 0).contains("max_gram 0"));
        let both = problem(|m| (m.max_gram, m.whole_words) = (2, false));
        assert!(both.contains("whole_words"), "{both}");
    }

    #[test]
    fn spans_have_the_lengths_of_microsofts_templates() {
        // (words, max_gram): spans of 1, 2, 3, 4 words, by `int(i / self.max_gram / j)` in Python.
        let table = [
            ((10, 1), [10, 0, 0, 0]),
            ((10, 2), [6, 2, 0, 0]),
            ((30, 3), [11, 5, 3, 0]),
            ((7, 3), [5, 1, 0, 0]),
            ((100, 4), [28, 12, 8, 6]),
            ((1, 4), [1, 0, 0, 0]),
        ];
        let mut rng = keyed(2, Purpose::Training, 0, 0);
        for ((count, max_gram), expected) in table {
            // Words of one, two and three tokens, behind those of another row.
            let mut words = vec![(7, 9)];
            let mut end = 0;
            for i in 0..count {
                words.push((end, end + 1 + i % 3));
                end += 1 + i % 3;
            }
            let starts: Vec<u32> = words[1..].iter().map(|w| w.0).collect();
            join_into_spans(&mut words, 1, max_gram, &mut Vec::new(), &mut rng);
            assert_eq!(words[0], (7, 9));
            let spans = &words[1..];
            let mut found = [0; 4];
            let mut next = 0;
            for &(from, to) in spans {
                assert_eq!(from, next, "spans follow each other");
                let words = starts.iter().filter(|s| (from..to).contains(s)).count();
                found[words - 1] += 1;
                next = to;
            }
            assert_eq!(next, end);
            assert_eq!(found, expected, "{count} words, up to {max_gram}");
        }
    }
}
