//! The kernel against the definition of two-stream attention, written down once more in f64.

use rand::seq::SliceRandom as _;
use rand::{Rng, RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Random inputs of an attention and of its derivative.
struct Case {
    sizes: Sizes,
    attributes: Attributes,
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    positions: Vec<i64>,
    keep: Vec<bool>,
    bias: Vec<f32>,
    /// Of every distance its bucket, as a table of biases has them.
    buckets: Vec<usize>,
    mask: Option<Vec<u8>>,
    d_context: Vec<f32>,
}

/// What the operator and its derivative give.
#[derive(Default)]
struct Results {
    context: Vec<f64>,
    sums: Vec<f64>,
    query: Vec<f64>,
    key: Vec<f64>,
    value: Vec<f64>,
    bias: Vec<f64>,
    /// `[buckets, H]`
    table: Vec<f64>,
}

fn floats(rng: &mut impl Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| rng.random_range(-1.0..1.0)).collect()
}

impl Case {
    fn new(seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let length: usize = [1, 2, 9, 64, 65, 130][rng.random_range(0..6)];
        let predicted = [0, 1, length.div_ceil(7), length][rng.random_range(0..4)];
        let (batch, heads) = (rng.random_range(1..4), rng.random_range(1..4));
        let width = [1, 8, 32, 48, 64, 96, 128][rng.random_range(0..7)];
        let (keys, all) = (length + predicted, length + 2 * predicted);
        let rows = match predicted > 0 && rng.random::<bool>() {
            true => predicted,
            false => all,
        };
        let positions = length + rng.random_range(0..4);
        let sizes = Sizes {
            batch,
            heads,
            width,
            length,
            predicted,
            rows,
            positions,
        };
        let ratio = [0.0, 0.1, 0.5][rng.random_range(0..3)];
        let columns = batch * heads * width;
        let mut places: Vec<i64> = Vec::new();
        for _ in 0..batch {
            let mut row: Vec<i64> = (0..length as i64).collect();
            row.shuffle(&mut rng);
            let copies = row[length - predicted..].to_vec();
            places.extend(row.iter().chain(&copies).chain(&copies));
        }
        // The first token is never padding.
        let keep = (0..batch * keys)
            .map(|i| i % keys == 0 || rng.random_range(0..5) > 0)
            .collect();
        let weights = batch * heads * rows * keys;
        let mask = (ratio > 0.0).then(|| {
            (0..weights)
                .map(|_| u8::from(rng.random::<f32>() >= ratio))
                .collect()
        });
        let count = [1, 2, 5, 32, 64][rng.random_range(0..5)];
        let buckets: Vec<usize> = (0..sizes.distances())
            .map(|_| rng.random_range(0..count))
            .collect();
        let table = floats(&mut rng, count * heads);
        let bias = (0..heads)
            .flat_map(|h| buckets.iter().map(move |bucket| (h, bucket)))
            .map(|(h, bucket)| table[bucket * heads + h])
            .collect();
        Self {
            sizes,
            attributes: Attributes {
                width,
                scale: 0.3,
                ratio,
            },
            query: floats(&mut rng, rows * columns),
            key: floats(&mut rng, keys * columns),
            value: floats(&mut rng, keys * columns),
            positions: places,
            keep,
            bias,
            buckets,
            mask,
            d_context: floats(&mut rng, rows * columns),
        }
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            sizes: self.sizes,
            attributes: self.attributes,
            query: &self.query,
            key: &self.key,
            value: &self.value,
            positions: &self.positions,
            keep: &self.keep,
            bias: &self.bias,
            mask: self.mask.as_deref(),
        }
    }

    fn found(&self) -> Results {
        let inputs = self.inputs();
        inputs.check().unwrap();
        let s = &self.sizes;
        let mut context = vec![f32::NAN; self.query.len()];
        let mut sums = vec![f32::NAN; s.batch * s.heads * s.rows];
        let (mut query, mut key, mut value) = (
            context.clone(),
            vec![f32::NAN; self.key.len()],
            vec![f32::NAN; self.key.len()],
        );
        let mut parts = vec![0.0f32; s.batch * self.bias.len()];
        for head in 0..s.batch * s.heads {
            // SAFETY: the outputs have the operator's shapes, and there is one thread.
            unsafe {
                let (context, sums) = (Shared(context.as_mut_ptr()), Shared(sums.as_mut_ptr()));
                Head::new(&inputs, head).forward(&context, &sums);
            }
        }
        let gradients = Gradients {
            d_context: &self.d_context,
            context: &context,
            sums: &sums,
            query: Shared(query.as_mut_ptr()),
            key: Shared(key.as_mut_ptr()),
            value: Shared(value.as_mut_ptr()),
            bias: Shared(parts.as_mut_ptr()),
        };
        for head in 0..s.batch * s.heads {
            // SAFETY: as above.
            unsafe { Head::new(&inputs, head).backward(&gradients) };
        }
        let mut bias = vec![0.0f64; self.bias.len()];
        for (i, x) in parts.iter().enumerate() {
            bias[i % self.bias.len()] += f64::from(*x);
        }
        let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect();
        Results {
            context: wide(&context),
            sums: wide(&sums),
            query: wide(&query),
            key: wide(&key),
            value: wide(&value),
            table: self.table(&bias),
            bias,
        }
    }

    /// The gradient of the table from that of the bias.
    fn table(&self, bias: &[f64]) -> Vec<f64> {
        let heads = self.sizes.heads;
        let count = self.buckets.iter().max().map_or(0, |last| last + 1);
        let mut table = vec![0.0; count * heads];
        for (h, of_head) in bias.chunks_exact(self.buckets.len()).enumerate() {
            for (gradient, bucket) in of_head.iter().zip(&self.buckets) {
                table[bucket * heads + h] += gradient;
            }
        }
        table
    }

    fn expected(&self) -> Results {
        let s = &self.sizes;
        let columns = s.batch * s.heads * s.width;
        let mut r = Results {
            context: vec![0.0; self.query.len()],
            sums: Vec::new(),
            query: vec![0.0; self.query.len()],
            key: vec![0.0; self.key.len()],
            value: vec![0.0; self.key.len()],
            bias: vec![0.0; self.bias.len()],
            table: Vec::new(),
        };
        for head in 0..s.batch * s.heads {
            let (b, h) = (head / s.heads, head % s.heads);
            let at = |row: usize, d: usize| row * columns + head * s.width + d;
            let dot = |x: &[f32], i: usize, y: &[f32], j: usize| -> f64 {
                (0..s.width)
                    .map(|d| f64::from(x[at(i, d)]) * f64::from(y[at(j, d)]))
                    .sum()
            };
            for row in 0..s.rows {
                let full = row + s.all() - s.rows;
                let position = |i: usize| self.positions[b * s.all() + i] as usize;
                let distance =
                    |k: usize| h * s.distances() + position(k) + s.positions - 1 - position(full);
                let keys: Vec<usize> = (0..s.keys())
                    .filter(|&k| self.keep[b * s.keys() + k] && sees(s, full, k))
                    .collect();
                let scores: Vec<f64> = keys
                    .iter()
                    .map(|&k| {
                        f64::from(self.attributes.scale) * dot(&self.query, row, &self.key, k)
                            + f64::from(self.bias[distance(k)])
                    })
                    .collect();
                let sum: f64 = scores.iter().map(|x| x.exp()).sum();
                r.sums.push(sum.ln());
                let kept = |k: usize| match &self.mask {
                    Some(mask) => {
                        let kept = mask[(head * s.rows + row) * s.keys() + k];
                        f64::from(kept) / (1.0 - f64::from(self.attributes.ratio))
                    }
                    None => 1.0,
                };
                let d_weight = |k: usize| dot(&self.d_context, row, &self.value, k) * kept(k);
                let delta: f64 = keys
                    .iter()
                    .zip(&scores)
                    .map(|(&k, x)| x.exp() / sum * d_weight(k))
                    .sum();
                for (&k, score) in keys.iter().zip(&scores) {
                    let weight = score.exp() / sum;
                    let d_score = weight * (d_weight(k) - delta);
                    r.bias[distance(k)] += d_score;
                    let scaled = d_score * f64::from(self.attributes.scale);
                    for d in 0..s.width {
                        r.context[at(row, d)] += weight * kept(k) * f64::from(self.value[at(k, d)]);
                        r.value[at(k, d)] +=
                            weight * kept(k) * f64::from(self.d_context[at(row, d)]);
                        r.query[at(row, d)] += scaled * f64::from(self.key[at(k, d)]);
                        r.key[at(k, d)] += scaled * f64::from(self.query[at(row, d)]);
                    }
                }
            }
        }
        r.table = self.table(&r.bias);
        r
    }
}

/// The table of who sees whom.
fn sees(sizes: &Sizes, row: usize, key: usize) -> bool {
    let (left, length) = (sizes.left(), sizes.length);
    let predicted = |i: usize| (left..length).contains(&i).then(|| i - left);
    let copy = |i: usize| (length..sizes.keys()).contains(&i).then(|| i - length);
    let query = row.checked_sub(sizes.keys());
    match (predicted(key), copy(key)) {
        (None, None) => true,
        (Some(j), _) => match (predicted(row), query) {
            (Some(i), _) => j <= i,
            (_, Some(i)) => j < i,
            (None, None) => false,
        },
        (_, Some(j)) => match (predicted(row), query) {
            (Some(i), _) => j > i,
            (_, Some(i)) => j >= i,
            (None, None) => true,
        },
    }
}

#[test]
fn agrees_with_the_definition_at_random_sizes() {
    for seed in 0..80 {
        let case = Case::new(seed);
        let (found, expected) = (case.found(), case.expected());
        let bias = &expected.bias;
        for (name, found, expected) in [
            ("context", &found.context, &expected.context),
            ("log-sum-exp", &found.sums, &expected.sums),
            ("queries' gradient", &found.query, &expected.query),
            ("keys' gradient", &found.key, &expected.key),
            ("values' gradient", &found.value, &expected.value),
            ("bias' gradient", &found.bias, &expected.bias),
            ("table's gradient", &found.table, &expected.table),
        ] {
            let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
            let off = norm(&mut found.iter().zip(expected).map(|(x, y)| x - y));
            let whole = match name {
                // Gradients of a row's scores cancel: a table of one bucket has none.
                "table's gradient" => norm(&mut bias.iter().copied()),
                _ => norm(&mut expected.iter().copied()),
            };
            // The floor is the rounding of what cancels where a row sees one key.
            let limit = 1e-5 * whole + 1e-6 * (found.len() as f64).sqrt();
            assert!(
                off <= limit,
                "{name} of case {seed}, {:?}: {off} of {whole}",
                case.sizes
            );
        }
    }
}

#[test]
fn a_row_that_sees_only_padding_gives_zeros() {
    let mut case = Case::new(0);
    case.keep.fill(false);
    let found = case.found();
    for values in [
        &found.context,
        &found.query,
        &found.key,
        &found.value,
        &found.bias,
    ] {
        assert!(values.iter().all(|&x| x == 0.0));
    }
}

#[test]
fn positions_beyond_the_bias_and_short_masks_are_refused() {
    let mut case = Case::new(1);
    case.positions[0] = case.sizes.positions as i64;
    assert!(case.inputs().check().unwrap_err().contains("is not below"));
    case.positions[0] = 0;
    case.mask = Some(vec![1]);
    assert!(case.inputs().check().unwrap_err().contains("1 elements"));
}
