//! Batches of random tokens, where what matters is their size: benchmarks and comparisons.

use super::collator::Batch;
use super::masking::Masking;
use super::rng::{Purpose, keyed};
use mpnet_graphs::model::config::ModelConfig;
use rand::RngExt;
use rand::seq::SliceRandom;

/// The `index`-th batch of `rows` full rows of `length` tokens for `model`, in random order; the predicted
/// tokens are masked.
pub fn synthetic_batch(model: &ModelConfig, rows: usize, length: usize, index: u64) -> Batch {
    let mut rng = keyed(1, Purpose::Training, 0, index);
    let predicted = Masking::default().predicted_count(length.saturating_sub(2));
    let predicted = predicted.min(length);
    let copies = model.objective.copies();
    let mut batch = Batch {
        rows,
        length,
        predicted,
        copies,
        input_ids: Vec::new(),
        positions: Vec::new(),
        targets: Vec::new(),
        attention_mask: vec![1; rows * (length + copies * predicted)],
        tokens: rows * length,
        predicted_tokens: rows * predicted,
    };
    let vocabulary = model.vocab_size as i64;
    for _ in 0..rows {
        let mut order: Vec<i64> = (0..length as i64).collect();
        order.shuffle(&mut rng);
        let ids: Vec<i64> = (0..length)
            .map(|_| rng.random_range(4.min(vocabulary - 1)..vocabulary))
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
        for _ in 0..copies {
            batch.positions.extend(&order[last..]);
        }
    }
    batch
}
