//! Figures of embeddings: correlation of ranks, retrieval, triplets. As sentence-transformers' evaluators compute them,
//! by cosine.

use std::collections::HashSet;

/// Results of a query that are looked at.
pub const BEST: usize = 10;

/// The cosine of two vectors of length 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// Spearman's correlation of two lists of numbers: Pearson's of their ranks, equal numbers sharing the mean of theirs.
/// None where one is the same number throughout.
pub fn spearman(a: &[f64], b: &[f64]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (of_a, of_b) = (mean(&a), mean(&b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(&b) {
        let (x, y) = (x - of_a, y - of_b);
        ab += x * y;
        aa += x * x;
        bb += y * y;
    }
    (aa > 0.0 && bb > 0.0).then(|| ab / (aa * bb).sqrt())
}

/// The rank of each number, from 1, equal ones sharing the mean of theirs.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&i, &j| values[i].total_cmp(&values[j]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for group in order.chunk_by(|&i, &j| values[i] == values[j]) {
        let mean = first as f64 + (group.len() as f64 + 1.0) / 2.0;
        for &at in group {
            ranks[at] = mean;
        }
        first += group.len();
    }
    ranks
}

/// How well queries find what is relevant to them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Retrieval {
    /// Normalized discounted cumulative gain of the [`BEST`] results.
    pub ndcg: f64,
    /// Share of what is relevant that is among the [`BEST`] results.
    pub recall: f64,
}

/// Means over queries, each with its results, best first, and what is relevant to it, at least one.
pub fn retrieval<'r>(
    queries: impl Iterator<Item = (&'r [usize], &'r HashSet<usize>)>,
) -> Retrieval {
    let gain = |place: usize| 1.0 / (place as f64 + 2.0).log2();
    let (mut ndcg, mut recall, mut count) = (0.0, 0.0, 0.0);
    for (results, relevant) in queries {
        let results = results.iter().take(BEST).enumerate();
        let found: Vec<usize> = results
            .filter(|(_, text)| relevant.contains(text))
            .map(|(place, _)| place)
            .collect();
        let ideal: f64 = (0..relevant.len().min(BEST)).map(gain).sum();
        ndcg += found.iter().map(|&place| gain(place)).sum::<f64>() / ideal;
        recall += found.len() as f64 / relevant.len() as f64;
        count += 1.0;
    }
    Retrieval {
        ndcg: ndcg / count,
        recall: recall / count,
    }
}

/// The [`BEST`] texts for a query of `scores`, best first; of equal scores the first.
pub fn best(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    let better = |&i: &usize, &j: &usize| scores[j].total_cmp(&scores[i]).then(i.cmp(&j));
    if order.len() > BEST {
        order.select_nth_unstable_by(BEST, better);
        order.truncate(BEST);
    }
    order.sort_by(better);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    /// scipy.stats.spearmanr 1.16 of these numbers.
    #[test]
    fn correlations_are_scipys() {
        let a = [0.1, 0.4, 0.4, 0.9, -0.3, 0.2];
        let b = [1.0, 3.0, 2.0, 5.0, 0.0, 5.0];
        let found = spearman(&a, &b).unwrap();
        assert!((found - 0.735_294_117_647_058_8).abs() < 1e-12, "{found}");
        assert_eq!(spearman(&a, &[1.0; 6]), None);
    }

    /// InformationRetrievalEvaluator.compute_metrics of sentence-transformers 6.2.0 for these results.
    #[test]
    fn retrieval_is_sentence_transformers() {
        let first: Vec<usize> = vec![3, 0, 7, 1, 2, 4, 5, 6, 8, 9, 10, 11];
        let second: Vec<usize> = vec![10, 11, 0, 1, 2, 3, 4, 5, 6, 7];
        let relevant = [HashSet::from([0, 2, 11]), HashSet::from([7])];
        let queries = [first.as_slice(), &second].into_iter().zip(&relevant);
        let found = retrieval(queries);
        assert!(
            (found.ndcg - 0.383_344_264_910_552_9).abs() < 1e-12,
            "{found:?}"
        );
        assert!(
            (found.recall - 0.833_333_333_333_333_3).abs() < 1e-12,
            "{found:?}"
        );
    }

    #[test]
    fn the_best_come_first_and_of_equals_the_first() {
        let scores: Vec<f32> = (0..40u8).map(|i| f32::from(i % 20)).collect();
        assert_eq!(best(&scores), [19, 39, 18, 38, 17, 37, 16, 36, 15, 35]);
        assert_eq!(best(&[0.5, 0.7]), [1, 0]);
    }
}
