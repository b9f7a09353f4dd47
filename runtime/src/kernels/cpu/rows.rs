//! Loops over a row of scores.

use super::vector::{exp, widest};

widest! {
    /// Adds to each score the bias at its key's place, and −∞ where the key is padding; gives the largest.
    pub(super) fn add_bias(scores: &mut [f32], bias: &[f32], places: &[u32], blocked: &[f32]) -> f32 {
        let mut largest = f32::NEG_INFINITY;
        for ((score, &place), blocked) in scores.iter_mut().zip(places).zip(blocked) {
            *score += bias[place as usize] + blocked;
        }
        for &score in scores.iter() {
            largest = largest.max(score);
        }
        largest
    }
}

widest! {
    /// Replaces scores by e^(score − shift); gives the sum.
    pub(super) fn exponentials(scores: &mut [f32], shift: f32) -> f32 {
        const LANES: usize = 16;
        let mut sums = [0.0f32; LANES];
        let mut chunks = scores.chunks_exact_mut(LANES);
        for chunk in &mut chunks {
            for (score, sum) in chunk.iter_mut().zip(&mut sums) {
                *score = exp(*score - shift);
                *sum += *score;
            }
        }
        let mut sum: f32 = sums.iter().sum();
        for score in chunks.into_remainder() {
            *score = exp(*score - shift);
            sum += *score;
        }
        sum
    }
}

widest! {
    /// Multiplies weights by `scale`.
    pub(super) fn scale(weights: &mut [f32], scale: f32) {
        for weight in weights {
            *weight *= scale;
        }
    }
}

widest! {
    /// Multiplies weights by `scale` where the mask is 1, and by 0 where it is 0.
    pub(super) fn drop_out(weights: &mut [f32], mask: &[u8], scale: f32) {
        for (weight, &kept) in weights.iter_mut().zip(mask) {
            *weight *= f32::from(kept) * scale;
        }
    }
}

widest! {
    /// Gradients of scores from those of their weights: weight · (gradient − delta).
    pub(super) fn score_gradients(gradients: &mut [f32], weights: &[f32], delta: f32) {
        for (gradient, weight) in gradients.iter_mut().zip(weights) {
            *gradient = weight * (*gradient - delta);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponentials_are_exact_to_the_last_places() {
        let xs: Vec<f32> = (-870..=0).map(|i| i as f32 / 10.0 + 0.013).collect();
        let mut found = xs.clone();
        let sum = exponentials(&mut found, 0.0);
        for (x, y) in xs.iter().zip(&found) {
            let expected = f64::from(*x).exp();
            let off = (f64::from(*y) - expected).abs() / expected;
            assert!(off < 3e-7, "e^{x} is {y}, off by {off}");
        }
        let expected: f64 = xs.iter().map(|&x| f64::from(x).exp()).sum();
        assert!((f64::from(sum) - expected).abs() < 1e-5 * expected);
        let mut none = [f32::NEG_INFINITY, -200.0];
        assert_eq!(exponentials(&mut none, 0.0), 0.0);
        assert_eq!(none, [0.0, 0.0]);
    }
}
