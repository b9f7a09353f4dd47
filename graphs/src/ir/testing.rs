//! Random values for a graph's inputs, for tests.

use super::{Array, Bindings, DType, Graph, Operation, ValueId};
use ndarray::IxDyn;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::HashMap;

/// Uniform floats in −1..1, indices below `indices` and masks of 0 and 1, for every input and
/// parameter.
pub(crate) fn random_feeds<O: Operation>(
    graph: &Graph<O>,
    sizes: &Bindings,
    indices: i64,
    seed: u64,
) -> HashMap<String, Array> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut draw = |id: ValueId| {
        let ty = graph.ty(id);
        let shape = mpnet_plan::shape(&ty.shape, sizes).unwrap();
        let array = Array::from_shape_simple_fn(IxDyn(&shape), || match ty.dtype {
            DType::F32 | DType::BF16 | DType::F16 => rng.random_range(-1.0..1.0),
            DType::U32 => f64::from(rng.random::<u32>()),
            DType::I64 => rng.random_range(0..indices) as f64,
            DType::U8 | DType::Bool => f64::from(u8::from(rng.random::<bool>())),
        });
        (graph.label(id), array)
    };
    let ids = graph.inputs().iter().chain(graph.parameters());
    ids.map(|&id| draw(id)).collect()
}
