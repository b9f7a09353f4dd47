//! Batches as the named tensors that an engine takes.

use crate::data::collator::Batch;
use crate::data::dropout::{MaskKey, fill_keep_mask};
use mpnet_graphs::ir::{Bindings, Dim};
use mpnet_graphs::lower::ort_training::LOSS_SCALE;
use mpnet_graphs::model::DropoutSite;
use mpnet_graphs::model::pretraining::{ATTENTION_MASK, INPUT_IDS, POSITIONS, TARGETS};
use mpnet_runtime::engine::{Tensor, TensorData};

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

/// The input that scales the loss: 1 / predicted tokens of the whole update.
pub fn loss_scale(predicted_tokens: usize) -> Tensor {
    Tensor {
        name: LOSS_SCALE.to_owned(),
        shape: vec![1],
        data: TensorData::F32(vec![1.0 / predicted_tokens.max(1) as f32]),
    }
}

/// The dropout masks of one micro-batch; `key` names the update and micro-batch, each site gets
/// its own stream.
pub fn dropout_masks(sites: &[DropoutSite], batch: &Batch, key: MaskKey) -> Vec<Tensor> {
    let sizes = Bindings {
        batch: batch.rows,
        length: batch.length,
        predicted: batch.predicted,
    };
    sites
        .iter()
        .enumerate()
        .map(|(index, site)| {
            let size = |d: &Dim| usize::try_from(d.eval(&sizes)).unwrap_or(0);
            let shape: Vec<usize> = site.shape.iter().map(size).collect();
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
