//! Keep-masks for dropout, made on the host: every byte depends on its key and its index alone.
//!
//! Each chunk of 64 KiB has its own generators, started from ChaCha8 with the mask's key, so that
//! threads share out chunks and the length of a mask changes none of its bytes.
//!
//! Masks are inputs of the training graph, from (seed, update, micro-batch, site): a resumed run
//! continues exactly, on any engine, which ONNX Runtime's own generators would not allow, as they
//! cannot be set. On a device they would be gigabytes a step, and a hash takes their place
//! (`passes::device_dropout`).

use rand::Rng;
use rayon::prelude::*;

use super::rng::{Purpose, keyed};

/// Bytes that one set of generators makes: what threads share out.
const CHUNK: usize = 1 << 16;
/// Generators side by side: enough to fill vector registers of any width without a line of assembly.
const LANES: usize = 16;
/// Every draw of 32 bits decides two bytes.
const STEP: usize = 2 * LANES;

/// Which mask: the same key gives the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct MaskKey {
    /// The run's seed.
    pub seed: u64,
    /// Update of the run.
    pub update: u64,
    /// Micro-batch of the update.
    pub micro_batch: u32,
    /// Which dropout of the model.
    pub site: u32,
}

/// Fills `out` with 0 (drop, with `drop_probability`) and 1 (keep), on the current rayon pool.
///
/// The probability is kept to within 2^-17; from 0 down nothing is dropped, from 1 up everything.
pub fn fill_keep_mask(out: &mut [u8], drop_probability: f32, key: MaskKey) {
    let drop_below = drop_threshold(drop_probability);
    let Ok(drop_below) = u16::try_from(drop_below) else {
        out.fill(0);
        return;
    };
    if drop_below == 0 {
        out.fill(1);
        return;
    }
    if out.len() <= CHUNK {
        fill_chunk(out, drop_below, key, 0);
        return;
    }
    out.par_chunks_mut(CHUNK)
        .enumerate()
        .for_each(|(index, chunk)| fill_chunk(chunk, drop_below, key, index as u64));
}

/// Of 2^16 draws, how many drop: a draw below this does.
fn drop_threshold(drop_probability: f32) -> u32 {
    // A NaN passes the clamp and becomes 0.
    (f64::from(drop_probability) * 65536.0)
        .round()
        .clamp(0.0, 65536.0) as u32
}

fn fill_chunk(chunk: &mut [u8], drop_below: u16, key: MaskKey, index: u64) {
    let mut lanes = Lanes::new(key, index);
    let mut steps = chunk.chunks_exact_mut(STEP);
    for step in &mut steps {
        let draws = lanes.next();
        for (byte, draw) in step.iter_mut().zip(draws) {
            *byte = u8::from(draw >= drop_below);
        }
    }
    for (byte, draw) in steps.into_remainder().iter_mut().zip(lanes.next()) {
        *byte = u8::from(draw >= drop_below);
    }
}

/// xoshiro128++ (Blackman and Vigna), `LANES` of them at once, so that loops over lanes vectorise.
struct Lanes {
    state: [[u32; LANES]; 4],
}

impl Lanes {
    fn new(key: MaskKey, chunk: u64) -> Self {
        let place = u64::from(key.micro_batch) << 32 | u64::from(key.site);
        let mut source = keyed(key.seed, Purpose::Dropout, key.update, place);
        source.set_stream(chunk);
        let state = std::array::from_fn(|_| std::array::from_fn(|_| source.next_u32()));
        Self { state }
    }

    /// Two draws of 16 bits from every lane.
    #[inline(always)]
    fn next(&mut self) -> [u16; STEP] {
        let mut draws = [0; STEP];
        let [a, b, c, d] = &mut self.state;
        for i in 0..LANES {
            let draw = a[i].wrapping_add(d[i]).rotate_left(7).wrapping_add(a[i]);
            draws[2 * i] = draw as u16;
            draws[2 * i + 1] = (draw >> 16) as u16;
            let shifted = b[i] << 9;
            c[i] ^= a[i];
            d[i] ^= b[i];
            b[i] ^= c[i];
            a[i] ^= d[i];
            c[i] ^= shifted;
            d[i] = d[i].rotate_left(11);
        }
        draws
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: MaskKey = MaskKey {
        seed: 12345,
        update: 7,
        micro_batch: 1,
        site: 3,
    };

    fn mask(len: usize, drop_probability: f32, key: MaskKey) -> Vec<u8> {
        let mut out = vec![9; len];
        fill_keep_mask(&mut out, drop_probability, key);
        assert!(out.iter().all(|&byte| byte <= 1));
        out
    }

    /// Correlation of two masks of one keep probability, in standard deviations of chance.
    fn correlation(a: &[u8], b: &[u8], keep: f64) -> f64 {
        let sum: f64 = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| (f64::from(a) - keep) * (f64::from(b) - keep))
            .sum();
        let n = a.len().min(b.len()) as f64;
        sum / (keep * (1.0 - keep)) / n.sqrt()
    }

    #[test]
    fn depends_on_key_and_index_only() {
        let whole = mask(5 * CHUNK + 77, 0.1, KEY);
        for len in [0, 1, 31, 32, 33, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            assert_eq!(mask(len, 0.1, KEY), whole[..len], "length {len}");
        }
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
            let again = pool
                .build()
                .unwrap()
                .install(|| mask(whole.len(), 0.1, KEY));
            assert!(again == whole, "{threads} threads");
        }
    }

    #[test]
    fn bytes_stay_what_they_are() {
        // A resumed run needs them; a change here breaks it.
        let bits = mask(64, 0.5, KEY);
        let bits = bits
            .iter()
            .fold(0u64, |bits, &bit| bits << 1 | u64::from(bit));
        assert_eq!(format!("{bits:016x}"), "046fe71cd67bb283");
        // xoshiro128++ with state 1, 2, 3, 4: first outputs of the authors' code.
        let state = [1, 2, 3, 4].map(|word| [word; LANES]);
        let mut lanes = Lanes { state };
        for expected in [641u32, 1_573_767, 3_222_811_527] {
            let draws = lanes.next();
            for lane in draws.chunks(2) {
                assert_eq!(u32::from(lane[0]) | u32::from(lane[1]) << 16, expected);
            }
        }
    }

    #[test]
    fn extremes_and_nonsense() {
        assert!(mask(100, 0.0, KEY).iter().all(|&byte| byte == 1));
        assert!(mask(100, -1.0, KEY).iter().all(|&byte| byte == 1));
        assert!(mask(100, f32::NAN, KEY).iter().all(|&byte| byte == 1));
        assert!(mask(100, 1.0, KEY).iter().all(|&byte| byte == 0));
        assert!(mask(100, f32::INFINITY, KEY).iter().all(|&byte| byte == 0));
    }

    #[test]
    fn drops_the_share_that_it_should() {
        for p in [0.001f32, 0.1, 0.25, 0.5, 0.9, 0.999] {
            let threshold = f64::from(drop_threshold(p)) / 65536.0;
            assert!((threshold - f64::from(p)).abs() <= 0.5 / 65536.0, "{p}");
            let n = 1 << 22;
            let kept: u64 = mask(n, p, KEY).iter().map(|&byte| u64::from(byte)).sum();
            let dropped = 1.0 - kept as f64 / n as f64;
            let deviation = (threshold * (1.0 - threshold) / n as f64).sqrt();
            assert!(
                (dropped - threshold).abs() < 4.5 * deviation,
                "{p}: {dropped}"
            );
        }
    }

    #[test]
    fn bytes_are_independent_of_their_neighbours() {
        let bits = mask(1 << 20, 0.1, KEY);
        // Neighbours in the mask, in the lane, in the next step, in a row of the model, in a chunk.
        for lag in (1..=130).chain([255, 256, 512, 768, 3072, CHUNK, CHUNK + 1, 2 * CHUNK]) {
            let deviations = correlation(&bits, &bits[lag..], 1.0 - 6554.0 / 65536.0);
            assert!(deviations.abs() < 4.5, "lag {lag}: {deviations}");
        }
    }

    #[test]
    fn masks_of_different_keys_are_independent() {
        let base = mask(1 << 20, 0.1, KEY);
        let mut others = Vec::new();
        for by in 1..=8 {
            others.push(MaskKey {
                seed: KEY.seed + u64::from(by),
                ..KEY
            });
            others.push(MaskKey {
                update: KEY.update + u64::from(by),
                ..KEY
            });
            others.push(MaskKey {
                micro_batch: KEY.micro_batch + by,
                ..KEY
            });
            others.push(MaskKey {
                site: KEY.site + by,
                ..KEY
            });
        }
        for key in others {
            let other = mask(base.len(), 0.1, key);
            let deviations = correlation(&base, &other, 1.0 - 6554.0 / 65536.0);
            assert!(deviations.abs() < 4.5, "{key:?}: {deviations}");
        }
    }

    #[test]
    fn patterns_of_eight_are_equally_frequent() {
        let bits = mask(1 << 22, 0.5, KEY);
        // Eight neighbours, and eight of one lane's halves in successive steps.
        for stride in [1, 2, STEP] {
            let mut counts = [0f64; 256];
            let mut all = 0.0;
            for block in bits.chunks_exact(8 * stride) {
                let pattern = (0..8).fold(0, |p, k| p << 1 | usize::from(block[k * stride]));
                counts[pattern] += 1.0;
                all += 1.0;
            }
            let expected = all / 256.0;
            let chi2: f64 = counts
                .iter()
                .map(|count| (count - expected).powi(2) / expected)
                .sum();
            // 255 degrees of freedom: 330.5 has p = 0.001, 190 has p = 0.999.
            assert!((190.0..330.5).contains(&chi2), "stride {stride}: {chi2}");
        }
    }
}
