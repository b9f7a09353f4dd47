//! Runs the encoder in `encoder/` in Burn on the batches of a safetensors file and compares its outputs
//! with those that another program stored there: ONNX Runtime's in `expected.safetensors`, or any in the
//! file that the first argument names.
//!
//! The file holds `0.input_ids`, `0.attention_mask` and outputs such as `0.last_hidden_state`, then `1.…`.

use burn::tensor::{Device, Int, Tensor, TensorData};
use mpnet_encoder::Model;
use safetensors::SafeTensors;
use std::error::Error;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Largest difference, relative to the largest value where that is above 1.
const TOLERANCE: f32 = 1e-4;
const EXPECTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/expected.safetensors");

/// Rows of one length.
struct Batch {
    shape: [usize; 2],
    ids: Vec<i64>,
    mask: Vec<i64>,
}

/// One output of the model.
struct Output {
    /// Whether it has values for each token, not for each row.
    by_token: bool,
    values: Vec<f32>,
}

/// What [`Model::forward`] returns, whatever the head: one tensor or two.
trait Outputs {
    fn list(self) -> Result<Vec<Output>>;
}

impl<const D: usize> Outputs for Tensor<D> {
    fn list(self) -> Result<Vec<Output>> {
        let values = self.into_data().try_to_vec::<f32>();
        Ok(vec![Output {
            by_token: D == 3,
            values: values.map_err(|e| format!("{e:?}"))?,
        }])
    }
}

impl<const A: usize, const B: usize> Outputs for (Tensor<A>, Tensor<B>) {
    fn list(self) -> Result<Vec<Output>> {
        Ok(self.0.list()?.into_iter().chain(self.1.list()?).collect())
    }
}

impl Batch {
    fn in_burn(&self, model: &Model, device: &Device) -> Result<Vec<Output>> {
        let tensor = |values: &[i64]| -> Tensor<2, Int> {
            Tensor::from_data(TensorData::new(values.to_vec(), self.shape), device)
        };
        model.forward(tensor(&self.ids), tensor(&self.mask)).list()
    }

    /// The largest difference of an output from `theirs`, at places that are no padding.
    fn difference(&self, ours: &Output, theirs: &[f32]) -> Result<f32> {
        if ours.values.len() != theirs.len() {
            return Err(format!("{} values for {}", ours.values.len(), theirs.len()).into());
        }
        let width = theirs.len() / self.mask.len();
        let largest = theirs.iter().fold(1f32, |most, x| most.max(x.abs()));
        let mut worst = 0f32;
        for (at, (a, b)) in ours.values.iter().zip(theirs).enumerate() {
            if !ours.by_token || self.mask[at / width] == 1 {
                let apart = (a - b).abs() / largest;
                worst = worst.max(if apart.is_nan() { f32::INFINITY } else { apart });
            }
        }
        Ok(worst)
    }
}

/// The batches of a file with what another program made of them.
fn stored(path: &str) -> Result<Vec<(Batch, Vec<Vec<f32>>)>> {
    let bytes = std::fs::read(path)?;
    let file = SafeTensors::deserialize(&bytes)?;
    let mut found = Vec::new();
    while let Ok(ids) = file.tensor(&format!("{}.input_ids", found.len())) {
        let name = |what: &str| format!("{}.{what}", found.len());
        let whole = |data: &[u8]| {
            data.as_chunks()
                .0
                .iter()
                .map(|b| i64::from_le_bytes(*b))
                .collect()
        };
        let batch = Batch {
            shape: [ids.shape()[0], ids.shape()[1]],
            ids: whole(ids.data()),
            mask: whole(file.tensor(&name("attention_mask"))?.data()),
        };
        let outputs = ["last_hidden_state", "logits", "sentence_embedding"];
        let outputs = outputs
            .iter()
            .filter_map(|what| file.tensor(&name(what)).ok());
        let floats = |data: &[u8]| {
            data.as_chunks()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect()
        };
        let outputs = outputs.map(|tensor| floats(tensor.data())).collect();
        found.push((batch, outputs));
    }
    Ok(found)
}

fn main() -> Result<()> {
    let path = std::env::args().nth(1);
    let batches = stored(path.as_deref().unwrap_or(EXPECTED))?;
    let device = Device::default();
    let model = Model::default();
    let mut worst = Vec::new();
    for (batch, theirs) in &batches {
        let ours = batch.in_burn(&model, &device)?;
        if ours.len() != theirs.len() {
            return Err(format!("{} outputs for {}", ours.len(), theirs.len()).into());
        }
        worst.resize(ours.len(), 0f32);
        for ((ours, theirs), worst) in ours.iter().zip(theirs).zip(&mut worst) {
            *worst = worst.max(batch.difference(ours, theirs)?);
        }
    }
    let lengths = batches.iter().map(|(batch, _)| batch.shape[1]);
    println!(
        "{} batches of lengths {} to {}: outputs apart by {worst:?} at most",
        batches.len(),
        lengths.clone().min().unwrap_or(0),
        lengths.max().unwrap_or(0)
    );
    match !batches.is_empty() && worst.iter().all(|&apart| apart <= TOLERANCE) {
        true => Ok(()),
        false => Err(format!("more than {TOLERANCE}, or nothing to compare").into()),
    }
}
