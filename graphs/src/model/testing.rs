//! A tiny model and a batch of it, for tests.

use super::config::{Activation, ModelConfig};
use super::objective::Objective;
use super::pretraining::{ATTENTION_MASK, INPUT_IDS, POSITIONS, TARGETS};
use crate::ir::testing::random_feeds;
use crate::ir::{Array, Bindings, Dim, Symbol};
use crate::ops::Graph;
use std::collections::HashMap;

/// Two layers of width 8, with every kind of dropout.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        encoder_layers: 2,
        encoder_embed_dim: 8,
        encoder_ffn_dim: 12,
        encoder_attention_heads: 2,
        activation_fn: Activation::Gelu,
        normalize_before: false,
        max_positions: 8,
        relative_attention_num_buckets: 8,
        relative_attention_max_distance: 20,
        vocab_size: 14,
        padded_vocab_size: 16,
        pad_token_id: 1,
        bos_token_id: 0,
        eos_token_id: 2,
        unk_token_id: 3,
        mask_token_id: 13,
        objective: Objective::Mpnet,
        dropout: 0.1,
        attention_dropout: 0.2,
        activation_dropout: 0.3,
    }
}

/// The smallest model that has every part, for printing.
pub(crate) fn smallest() -> ModelConfig {
    ModelConfig {
        encoder_layers: 1,
        encoder_embed_dim: 4,
        encoder_ffn_dim: 6,
        ..tiny()
    }
}

/// The sizes of [`batch`].
pub(crate) const SIZES: Bindings = Bindings::new([
    (Symbol::BATCH, 2),
    (Symbol::LENGTH, 6),
    (Symbol::PREDICTED, 2),
]);

/// Values of every input and parameter of `graph`, which trains for `objective`: a full row and a
/// padded one whose last target is ignored, dropout masks and parameters at random.
pub(crate) fn batch(graph: &Graph, objective: Objective, seed: u64) -> HashMap<String, Array> {
    #[rustfmt::skip]
    let ids = [
        // Not predicted, predicted, two times the predicted places as the model sees them.
        [0, 4, 5, 2,  6, 7,  13, 8,  13, 8],
        [0, 2, 1, 1,  9, 10,  13, 13,  13, 13],
    ];
    #[rustfmt::skip]
    let positions = [
        [0, 2, 4, 5,  3, 1,  3, 1,  3, 1],
        [0, 3, 4, 5,  2, 1,  2, 1,  2, 1],
    ];
    let targets = [[6, 7], [9, 1]];
    let mut feeds = random_feeds(graph, &SIZES, 1, seed);
    let rows = Dim::from(Symbol::LENGTH);
    let copies = Dim::from(objective.copies()) * Dim::from(Symbol::PREDICTED);
    let columns = (rows + copies).eval(&SIZES).unwrap() as usize;
    let mut set = |name: &str, mut rows: ndarray::Array2<i32>| {
        // The targets have fewer columns than any objective's batch.
        rows.slice_axis_inplace(ndarray::Axis(1), (..columns.min(rows.ncols())).into());
        feeds.insert(name.to_owned(), rows.mapv(f64::from).into_dyn());
    };
    let ids = ndarray::arr2(&ids);
    set(ATTENTION_MASK, ids.mapv(|id| i32::from(id != 1)));
    set(INPUT_IDS, ids);
    set(POSITIONS, ndarray::arr2(&positions));
    set(TARGETS, ndarray::arr2(&targets));
    feeds
}
