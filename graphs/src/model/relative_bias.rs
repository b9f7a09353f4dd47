//! The relative position bias: one learned number for each head and bucket of distances.
//!
//! The table's gradient is a product with one-hot buckets, summed over layers first: no scatter
//! over all pairs of positions.

use super::builder::Builder;
use crate::ir::{DType, Dim, GraphError, ValueId};

/// The bucket of a key that stands `relative` = pos\[key\] − pos\[query\] positions after its query.
///
/// In f32 throughout, as PyTorch computes it (T5's bidirectional buckets).
pub fn relative_position_bucket(relative: i64, buckets: usize, max_distance: usize) -> usize {
    let half = buckets / 2;
    let exact = half / 2;
    let offset = if relative > 0 { half } else { 0 };
    let n = relative.unsigned_abs() as usize;
    if n < exact {
        return offset + n;
    }
    let span = (max_distance as f64 / exact as f64).ln() as f32;
    let log = (n as f32 / exact as f32).ln() / span * (half - exact) as f32;
    offset + (exact + log as usize).min(half - 1)
}

/// The bias of every query row against every key, `[B, H, R, S]`, from positions i64 `[B, R]` and
/// `[B, S]`.
pub(super) fn relative_bias(
    b: &mut Builder,
    query_positions: ValueId,
    key_positions: ValueId,
) -> Result<ValueId, GraphError> {
    let longest = b.config.max_positions;
    let graph = &mut b.graph;
    let with_axis = |graph: &mut crate::ops::Graph, x: ValueId, axis: usize| {
        let mut shape = graph.ty(x).shape.clone();
        shape.insert(axis, Dim::from(1));
        graph.reshape(x, shape)
    };
    let queries = with_axis(graph, query_positions, 2)?; // [B, R, 1]
    let keys = with_axis(graph, key_positions, 1)?; // [B, 1, S]
    let last = graph.index(longest as i64 - 1)?;
    let keys = graph.add(keys, last)?;
    let distance = graph.sub(keys, queries)?; // [B, R, S], from 0 for −(longest − 1)
    let buckets = buckets(b)?;
    let bucket = b.graph.gather(buckets, distance)?; // [B, R, S]
    let table = b.parameter("sentence_encoder.relative_attention_bias.weight")?;
    let bias = b.graph.gather(table, bucket)?; // [B, R, S, H]
    b.graph.transpose(bias, &[0, 3, 1, 2])
}

/// The bias of every head by distance, `[H, 2M − 1]`, from −(M − 1) on, M positions being the longest.
pub(super) fn bias_by_distance(b: &mut Builder) -> Result<ValueId, GraphError> {
    let buckets = buckets(b)?;
    let table = b.parameter("sentence_encoder.relative_attention_bias.weight")?;
    let bias = b.graph.gather(table, buckets)?; // [2M − 1, H]
    b.graph.transpose(bias, &[1, 0])
}

/// The bucket of every distance, i64 `[2M − 1]`, from −(M − 1) on.
fn buckets(b: &mut Builder) -> Result<ValueId, GraphError> {
    let reach = b.config.max_positions as i64 - 1;
    let buckets = (-reach..=reach).map(|relative| {
        relative_position_bucket(
            relative,
            b.config.relative_attention_num_buckets,
            b.config.relative_attention_max_distance,
        ) as f64
    });
    let count = 2 * b.config.max_positions - 1;
    b.graph.constant(DType::I64, &[count], buckets)
}

#[cfg(test)]
mod tests {
    use super::relative_position_bucket;

    #[test]
    fn buckets_are_pytorchs() {
        let table = include_str!("testdata/relative_buckets.txt");
        let mut lines = 0;
        for line in table.lines().filter(|l| !l.starts_with('#')) {
            let (setting, starts) = line.split_once(':').expect("a colon");
            let numbers = |text: &str| -> Vec<usize> {
                text.split_whitespace()
                    .map(|n| n.parse().expect("a number"))
                    .collect()
            };
            let [buckets, max_distance] = numbers(setting)[..] else {
                panic!("'{setting}' is not two numbers");
            };
            let starts = numbers(starts);
            assert_eq!(starts.len(), buckets / 2);
            for distance in 0..4096 {
                let expected = starts.partition_point(|&s| s <= distance) - 1;
                let at = |relative| relative_position_bucket(relative, buckets, max_distance);
                let distance = distance as i64;
                assert_eq!(at(-distance), expected, "{setting}: key {distance} before");
                if distance > 0 {
                    let after = expected + buckets / 2;
                    assert_eq!(at(distance), after, "{setting}: key {distance} after");
                }
            }
            lines += 1;
        }
        assert_eq!(lines, 8);
    }
}
