//! Batches of random tokens, where what matters is their size: benchmarks and comparisons.

use super::collator::Batch;
use super::masking::Masking;
use super::rng::{Purpose, keyed};
use mpnet_graphs::model::config::ModelConfig;
use rand::RngExt;
use rand::seq::SliceRandom;

/// The `index`-th batch of rows of these `lengths` for `model`, in random order and padded to the longest; the
/// predicted tokens are masked.
pub fn synthetic_batch(model: &ModelConfig, lengths: &[usize], index: u64) -> Batch {
    let mut rng = keyed(1, Purpose::Training, 0, index);
    let length = lengths.iter().copied().max().unwrap_or(0);
    let shortest = lengths.iter().copied().min().unwrap_or(0);
    let predicted = Masking::default().predicted_count(shortest.saturating_sub(2));
    let predicted = predicted.min(shortest);
    let copies = model.objective.copies();
    let mut batch = Batch {
        rows: lengths.len(),
        length,
        predicted,
        copies,
        input_ids: Vec::new(),
        positions: Vec::new(),
        targets: Vec::new(),
        attention_mask: Vec::new(),
        tokens: lengths.iter().sum(),
        predicted_tokens: lengths.len() * predicted,
        own_shares: lengths.len() * predicted,
    };
    let vocabulary = model.vocab_size as i64;
    for &real in lengths {
        let mut order: Vec<i64> = (0..real as i64).collect();
        order.shuffle(&mut rng);
        // Padding is among what is not predicted, in front of it.
        order.splice(0..0, real as i64..length as i64);
        let padding = length - real;
        let ids: Vec<i64> = (0..length)
            .map(|i| match i < padding {
                true => model.pad_token_id,
                false => rng.random_range(4.min(vocabulary - 1)..vocabulary),
            })
            .collect();
        let last = length - predicted;
        batch.targets.extend(&ids[last..]);
        batch.positions.extend(&order);
        // A single stream has its masks in place.
        let shown = if copies == 0 { last } else { length };
        let masks = copies.max(1) * predicted;
        batch.input_ids.extend(&ids[..shown]);
        batch
            .input_ids
            .extend(std::iter::repeat_n(model.mask_token_id, masks));
        let seen = (0..length + copies * predicted).map(|i| i64::from(i >= padding));
        batch.attention_mask.extend(seen);
        for _ in 0..copies {
            batch.positions.extend(&order[last..]);
        }
    }
    batch
}
