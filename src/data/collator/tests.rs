//! Batches of every objective: what they must hold, and how often what is drawn.

use mpnet_graphs::model::Objective;
use proptest::prelude::*;

use super::*;
use crate::data::fixture;
use crate::data::rng::{Purpose, keyed};

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
    let close = |share: f64, to: f64| (share - to).abs() <= 5.0 * (to * (1.0 - to) / all).sqrt();
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
    assert!(error.to_string().contains("pred_prob 0"), "{error}");
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
