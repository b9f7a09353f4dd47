//! Loops over a row of scores, compiled for the widest vectors that the processor has.

/// A function for plain processors and for those with AVX2.
macro_rules! widest {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        pub(super) fn $name($($argument: $ty),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $ty),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,fma")]
                fn wide($($argument: $ty),*) $(-> $result)? {
                    plain($($argument),*)
                }
                if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                    // SAFETY: the processor has what the function is compiled for.
                    return unsafe { wide($($argument),*) };
                }
            }
            plain($($argument),*)
        }
    };
}

/// e^x to within 2 units in the last place; 0 below −87.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let clamped = x.clamp(-87.0, 88.0);
    // Rounds to the nearest whole number, which the low bits then hold.
    const MAGIC: f32 = 12_582_912.0;
    let shifted = clamped.mul_add_or(std::f32::consts::LOG2_E, MAGIC);
    let whole = shifted - MAGIC;
    // ln 2 in two parts, the first with few bits.
    let rest = clamped - whole * 0.693_359_4 + whole * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for c in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        0.166_666_65,
        0.5,
    ] {
        p = p * rest + c;
    }
    let mantissa = p * rest * rest + rest + 1.0;
    let exponent = (shifted
        .to_bits()
        .wrapping_sub(MAGIC.to_bits())
        .wrapping_add(127))
        << 23;
    let result = mantissa * f32::from_bits(exponent);
    if x < -87.0 { 0.0 } else { result }
}

/// Products and sums that need no fused instruction, which plain processors lack.
trait MulAddOr {
    fn mul_add_or(self, factor: f32, addend: f32) -> f32;
}

impl MulAddOr for f32 {
    #[inline(always)]
    fn mul_add_or(self, factor: f32, addend: f32) -> f32 {
        self * factor + addend
    }
}

widest! {
    /// Adds to each score the bias at its key's place, and −∞ where the key is padding; gives the largest.
    fn add_bias(scores: &mut [f32], bias: &[f32], places: &[u32], blocked: &[f32]) -> f32 {
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
    fn exponentials(scores: &mut [f32], shift: f32) -> f32 {
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
    fn scale(weights: &mut [f32], scale: f32) {
        for weight in weights {
            *weight *= scale;
        }
    }
}

widest! {
    /// Multiplies weights by `scale` where the mask is 1, and by 0 where it is 0.
    fn drop_out(weights: &mut [f32], mask: &[u8], scale: f32) {
        for (weight, &kept) in weights.iter_mut().zip(mask) {
            *weight *= f32::from(kept) * scale;
        }
    }
}

widest! {
    /// Gradients of scores from those of their weights: weight · (gradient − delta).
    fn score_gradients(gradients: &mut [f32], weights: &[f32], delta: f32) {
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
