//! Arithmetic in loops that the compiler turns into the widest vectors that the processor has.

/// A function for plain processors and for those with AVX2.
macro_rules! widest {
    ($(#[$doc:meta])* $visible:vis fn $name:ident($($argument:ident: $ty:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$doc])*
        $visible fn $name($($argument: $ty),*) $(-> $result)? {
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

pub(super) use widest;

/// e^x to within 2 units in the last place; 0 below −87.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
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

/// e^(−z²) and the complementary error function of z ≥ 0, which is that times a polynomial in 1 / (1 + pz).
#[inline(always)]
pub(super) fn gaussian(z: f32) -> (f32, f32) {
    const P: f32 = 0.327_591_1;
    // A least-squares fit in relative error, the constant term last.
    const POLYNOMIAL: [f32; 8] = [
        -0.142_722_71,
        0.503_455_94,
        -0.417_835,
        0.464_547_28,
        0.019_217_515,
        0.207_867_89,
        0.180_392_4,
        0.185_076_74,
    ];
    let e = exp(-z * z);
    let t = 1.0 / (1.0 + P * z);
    let mut q = 0.0;
    for c in POLYNOMIAL {
        q = q * t + c;
    }
    (e, q * t * e)
}

#[cfg(test)]
mod tests {
    use super::gaussian;

    #[test]
    fn the_complementary_error_function_is_exact_to_seven_places() {
        for i in 0..1000 {
            let z = i as f32 / 100.0;
            let (e, erfc) = gaussian(z);
            let wide = f64::from(z);
            assert!((f64::from(e) - (-wide * wide).exp()).abs() < 2e-7, "{z}");
            let off = (f64::from(erfc) - libm::erfc(wide)).abs();
            assert!(off < 5e-7, "erfc({z}) is off by {off}");
        }
    }
}
