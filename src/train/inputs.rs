//! Batches as the named tensors that an engine takes.

use crate::data::collator::Batch;
use crate::data::dropout::{MaskKey, fill_keep_mask};
use crate::data::rng::{Purpose, keyed};
use mpnet_graphs::model::pretraining::{ATTENTION_MASK, INPUT_IDS, POSITIONS, TARGETS};
use mpnet_plan::{Bindings, Dim, DropoutSite, Factor, Randomness, Symbol, names};
use mpnet_runtime::engine::{Tensor, TensorData};
use rand::Rng;

/// The batch itself: what the training and the evaluation graph both take.
pub fn batch_inputs(batch: &Batch) -> Vec<Tensor> {
    let indices = |name: &str, columns: usize, values: &[i64]| Tensor {
        name: name.to_owned(),
        shape: vec![batch.rows, columns],
        data: TensorData::I64(values.to_vec()),
    };
    vec![
        indices(INPUT_IDS, batch.width(), &batch.input_ids),
        indices(POSITIONS, batch.width(), &batch.positions),
        indices(TARGETS, batch.predicted, &batch.targets),
        indices(ATTENTION_MASK, batch.width(), &batch.attention_mask),
    ]
}

/// References to tensors, as engines take them.
pub fn borrowed(inputs: &[Tensor]) -> Vec<&Tensor> {
    inputs.iter().collect()
}

/// The input that scales the loss: 1 / predicted tokens of the whole update.
pub fn loss_scale(predicted_tokens: usize) -> Tensor {
    Tensor {
        name: names::LOSS_SCALE.to_owned(),
        shape: vec![1],
        data: TensorData::F32(vec![1.0 / predicted_tokens.max(1) as f32]),
    }
}

/// What a training graph takes for the dropout of one micro-batch; `key` names the update and the
/// micro-batch.
pub fn dropout_inputs(randomness: &Randomness, batch: &Batch, key: MaskKey) -> Vec<Tensor> {
    match randomness {
        Randomness::Masks(sites) => dropout_masks(sites, batch, key),
        Randomness::Factors(factors) => dropout_factors(factors, batch, key),
    }
}

fn shape(dims: &[Dim], batch: &Batch) -> Vec<usize> {
    let sizes = Bindings::new([
        (Symbol::BATCH, batch.rows),
        (Symbol::LENGTH, batch.length),
        (Symbol::PREDICTED, batch.predicted),
    ]);
    mpnet_plan::shape(dims, &sizes)
}

/// Random odd factors, from which the device computes its masks.
fn dropout_factors(factors: &[Factor], batch: &Batch, key: MaskKey) -> Vec<Tensor> {
    let mut rng = keyed(
        key.seed,
        Purpose::Dropout,
        key.update,
        key.micro_batch.into(),
    );
    factors
        .iter()
        .map(|factor| {
            let shape = shape(&factor.shape, batch);
            let count = shape.iter().product();
            Tensor {
                name: factor.name.clone(),
                shape,
                data: TensorData::U32((0..count).map(|_| rng.next_u32() | 1).collect()),
            }
        })
        .collect()
}

/// The dropout masks of one micro-batch; `key` names the update and micro-batch, each site gets
/// its own stream.
fn dropout_masks(sites: &[DropoutSite], batch: &Batch, key: MaskKey) -> Vec<Tensor> {
    sites
        .iter()
        .enumerate()
        .map(|(index, site)| {
            let shape = shape(&site.shape, batch);
            let mut keep = vec![0; shape.iter().product()];
            let site_key = MaskKey {
                site: index as u32,
                ..key
            };
            fill_keep_mask(&mut keep, site.ratio, site_key);
            Tensor {
                name: site.name.clone(),
                shape,
                data: TensorData::U8(keep),
            }
        })
        .collect()
}
