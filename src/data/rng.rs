//! Random streams that depend only on their key, and the few ways in which the data path draws from them.
//!
//! Drawing is spelled out here because `rand`'s ranges and shuffles may change their values between
//! releases, and a run must resume with the values it started with.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// What a stream is for: streams of different purposes never overlap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Order of the shards of one epoch.
    Shuffle = 1,
    /// Permutation and masking of a training batch.
    Training = 2,
    /// Permutation and masking of an evaluation batch.
    Evaluation = 3,
    /// Dropout masks.
    Dropout = 4,
    /// Rows drawn from the shuffle buffer.
    Buffer = 5,
    /// Order of the batches of one group.
    Groups = 6,
    /// Which part of a mixture the next text comes from.
    Mixture = 7,
    /// Order of the rows of one epoch, and of its batches.
    Rows = 8,
}

/// The generator of key (`seed`, `purpose`, `major`, `minor`).
pub fn keyed(seed: u64, purpose: Purpose, major: u64, minor: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    for (slot, word) in key
        .chunks_exact_mut(8)
        .zip([seed, purpose as u64, major, minor])
    {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// A uniform number in 0..`bound`, without bias (Lemire's method); `bound` must not be 0.
#[inline]
pub fn below(rng: &mut ChaCha8Rng, bound: u32) -> u32 {
    let mut product = u64::from(rng.next_u32()) * u64::from(bound);
    if (product as u32) < bound {
        let reject_below = bound.wrapping_neg() % bound;
        while (product as u32) < reject_below {
            product = u64::from(rng.next_u32()) * u64::from(bound);
        }
    }
    (product >> 32) as u32
}

/// Fisher-Yates over the whole slice, which must have fewer than 2^32 items.
pub fn shuffle<T>(rng: &mut ChaCha8Rng, items: &mut [T]) {
    for last in (1..items.len()).rev() {
        let other = below(rng, last as u32 + 1) as usize;
        items.swap(last, other);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_of_the_key_matters() {
        let base = keyed(1, Purpose::Training, 2, 3).next_u64();
        assert_eq!(base, keyed(1, Purpose::Training, 2, 3).next_u64());
        for other in [
            keyed(9, Purpose::Training, 2, 3).next_u64(),
            keyed(1, Purpose::Evaluation, 2, 3).next_u64(),
            keyed(1, Purpose::Training, 9, 3).next_u64(),
            keyed(1, Purpose::Training, 2, 9).next_u64(),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn below_is_uniform() {
        let mut rng = keyed(5, Purpose::Shuffle, 0, 0);
        let mut counts = [0f64; 7];
        let draws = 700_000;
        for _ in 0..draws {
            counts[below(&mut rng, 7) as usize] += 1.0;
        }
        let expected = draws as f64 / 7.0;
        let chi2: f64 = counts
            .iter()
            .map(|c| (c - expected).powi(2) / expected)
            .sum();
        assert!(chi2 < 22.5, "chi-square of 6 degrees of freedom: {chi2}"); // p = 0.001
    }

    #[test]
    fn shuffle_reaches_every_order_equally() {
        let mut rng = keyed(6, Purpose::Shuffle, 0, 0);
        let mut counts = std::collections::HashMap::new();
        for _ in 0..24_000 {
            let mut items = [0, 1, 2, 3];
            shuffle(&mut rng, &mut items);
            *counts.entry(items).or_insert(0.0) += 1.0;
        }
        assert_eq!(counts.len(), 24);
        let chi2: f64 = counts
            .values()
            .map(|c: &f64| (c - 1000.0).powi(2) / 1000.0)
            .sum();
        assert!(chi2 < 49.7, "chi-square of 23 degrees of freedom: {chi2}"); // p = 0.001
    }
}
