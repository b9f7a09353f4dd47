//! From rows to the rows of batches: like lengths together, so that padding stays small.

use crate::data::rng::{Purpose, keyed, shuffle};

use super::samples::Row;

/// Batches of one group at least: with lengths spread evenly, a batch's lengths then differ by 1/32.
const BATCHES: usize = 32;
/// Rows of one group at least, so that what is kept per group costs little per row.
pub const GROUP_ROWS: usize = 1024;

/// How rows become batches.
#[derive(Debug, Clone, Copy)]
pub struct Grouping {
    /// Rows of a batch, where tokens don't limit it.
    pub batch_size: usize,
    /// Tokens of a batch at most, padding included, instead of a number of rows.
    pub max_batch_tokens: Option<usize>,
    /// Put rows of like lengths together.
    pub by_length: bool,
    /// Rows of one group at least, where tokens don't limit batches.
    pub least_rows: usize,
    pub seed: u64,
}

impl Grouping {
    /// Whether `rows` rows with `tokens` tokens in all are a group.
    pub fn is_full(&self, rows: usize, tokens: usize) -> bool {
        match self.max_batch_tokens {
            Some(limit) => tokens >= limit.saturating_mul(BATCHES),
            None => {
                let batches = if self.by_length { BATCHES } else { 1 };
                let batches = batches.max(self.least_rows.div_ceil(self.batch_size));
                rows >= self.batch_size.saturating_mul(batches)
            }
        }
    }

    /// The batches of group `group`, and the rows that are left over for the next one.
    pub fn cut(&self, mut rows: Vec<Row>, group: u64) -> (Vec<Vec<Row>>, Vec<Row>) {
        if self.by_length {
            rows.sort_by_key(|row| row.len());
        }
        let (mut batches, mut batch, mut longest) = (Vec::new(), Vec::<Row>::new(), 0);
        for row in rows {
            let with_it = longest.max(row.len());
            let full = match self.max_batch_tokens {
                Some(limit) => !batch.is_empty() && (batch.len() + 1) * with_it > limit,
                None => batch.len() == self.batch_size,
            };
            if full {
                batches.push(std::mem::take(&mut batch));
                longest = row.len();
            } else {
                longest = with_it;
            }
            batch.push(row);
        }
        let mut left = Vec::new();
        match self.max_batch_tokens {
            Some(_) => left = batch,
            None => batches.push(batch),
        }
        if self.by_length {
            let mut rng = keyed(self.seed, Purpose::Groups, 0, group);
            shuffle(&mut rng, &mut batches);
        }
        (batches, left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(lengths: impl Iterator<Item = usize>) -> Vec<Row> {
        lengths.map(|length| vec![7; length].into()).collect()
    }

    /// Lengths from 32 to 512, in no order.
    fn ragged(count: usize) -> Vec<Row> {
        rows((0..count).map(|i| 32 + i * 7919 % 481))
    }

    fn padding(batches: &[Vec<Row>]) -> f64 {
        let (mut all, mut real) = (0, 0);
        for batch in batches {
            all += batch.len() * batch.iter().map(|row| row.len()).max().unwrap();
            real += batch.iter().map(|row| row.len()).sum::<usize>();
        }
        1.0 - real as f64 / all as f64
    }

    fn grouping(max_batch_tokens: Option<usize>, by_length: bool) -> Grouping {
        Grouping {
            batch_size: 16,
            max_batch_tokens,
            by_length,
            least_rows: GROUP_ROWS,
            seed: 1,
        }
    }

    #[test]
    fn grouped_batches_are_full_and_hardly_padded() {
        let grouped = grouping(None, true);
        let count = (1..).find(|&n| grouped.is_full(n, 0)).unwrap();
        let (batches, left) = grouped.cut(ragged(count), 0);
        assert!(left.is_empty());
        assert!(batches.iter().all(|batch| batch.len() == 16));
        assert!(padding(&batches) < 0.03, "{}", padding(&batches));
        let (plain, _) = grouping(None, false).cut(ragged(count), 0);
        assert!(padding(&plain) > 0.3, "{}", padding(&plain));
        let (other, _) = grouped.cut(ragged(count), 1);
        assert_ne!(batches, other, "the order of the batches is drawn");
    }

    #[test]
    fn batches_by_tokens_stay_within_them_and_lose_no_row() {
        for by_length in [true, false] {
            let limited = grouping(Some(4096), by_length);
            let rows = ragged(700);
            let (batches, left) = limited.cut(rows.clone(), 0);
            for batch in &batches {
                let longest = batch.iter().map(|row| row.len()).max().unwrap();
                assert!(batch.len() * longest <= 4096);
            }
            let count = batches.iter().map(Vec::len).sum::<usize>() + left.len();
            assert_eq!(count, rows.len());
            assert!(!left.is_empty());
            if by_length {
                assert!(padding(&batches) < 0.05, "{}", padding(&batches));
            }
        }
    }
}
