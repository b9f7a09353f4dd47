//! Runs an exported ONNX model in tract, which shares no code with ONNX Runtime, on the batches of a
//! safetensors file, and compares its outputs with those that another program stored there.
//!
//! usage: mpnet-tract MODEL.onnx BATCHES.safetensors [TOLERANCE]
//!
//! The file holds `0.input_ids`, `0.attention_mask` and each output of the model, such as
//! `0.last_hidden_state`, then `1.…`; or one batch, with names that have no number. Differences are relative to the largest value of
//! an output where that is above 1, and 1e-4 is tolerated where nothing else is said.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::SafeTensors;
use tract_onnx::prelude::*;

/// Rows of one length, and what another program made of them.
struct Batch {
    shape: [usize; 2],
    ids: Vec<i64>,
    mask: Vec<i64>,
    outputs: Vec<Expected>,
}

struct Expected {
    name: String,
    /// Whether it has values for each token, not for each row.
    by_token: bool,
    values: Vec<f32>,
}

/// The batches of a file, with the outputs of these names.
fn stored(path: &Path, outputs: &[String]) -> Result<Vec<Batch>> {
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let file = SafeTensors::deserialize(&bytes)?;
    let one = file.tensor("input_ids").is_ok();
    let mut found = Vec::new();
    loop {
        let name = |what: &str| {
            if one {
                what.to_owned()
            } else {
                format!("{}.{what}", found.len())
            }
        };
        let Ok(ids) = file.tensor(&name("input_ids")) else {
            break;
        };
        let whole = |data: &[u8]| -> Vec<i64> {
            let numbers = data.as_chunks().0.iter();
            numbers.map(|b| i64::from_le_bytes(*b)).collect()
        };
        let outputs = outputs.iter().map(|output| {
            let tensor = file.tensor(&name(output))?;
            let numbers = tensor.data().as_chunks().0.iter();
            Ok(Expected {
                name: output.clone(),
                by_token: tensor.shape().len() == 3,
                values: numbers.map(|b| f32::from_le_bytes(*b)).collect(),
            })
        });
        let batch = Batch {
            shape: [ids.shape()[0], ids.shape()[1]],
            ids: whole(ids.data()),
            mask: whole(file.tensor(&name("attention_mask"))?.data()),
            outputs: outputs.collect::<Result<_>>()?,
        };
        found.push(batch);
        if one {
            break;
        }
    }
    Ok(found)
}

impl Batch {
    /// What `model` makes of it.
    fn run(&self, model: &Arc<TypedRunnableModel>) -> Result<Vec<Vec<f32>>> {
        let input = |values| Tensor::from_shape(&self.shape, values);
        let inputs = tvec!(
            input(&self.ids)?.into_tvalue(),
            input(&self.mask)?.into_tvalue()
        );
        let outputs = model.run(inputs)?;
        let floats = |output: TValue| -> Result<Vec<f32>> {
            Ok(output.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
        };
        outputs.into_iter().map(floats).collect()
    }

    /// The largest difference of an output from what is expected, at places that are no padding.
    fn difference(&self, ours: &[f32], expected: &Expected) -> Result<f32> {
        let theirs = &expected.values;
        ensure!(
            ours.len() == theirs.len(),
            "{} has {} values, not {}",
            expected.name,
            ours.len(),
            theirs.len()
        );
        let width = theirs.len() / self.mask.len();
        let largest = theirs.iter().fold(1f32, |most, x| most.max(x.abs()));
        let mut worst = 0f32;
        for (at, (a, b)) in ours.iter().zip(theirs).enumerate() {
            if !expected.by_token || self.mask[at / width] == 1 {
                let apart = (a - b).abs() / largest;
                worst = worst.max(if apart.is_nan() { f32::INFINITY } else { apart });
            }
        }
        Ok(worst)
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (model, batches, tolerance) = match &arguments[..] {
        [model, batches] => (model, batches, 1e-4),
        [model, batches, tolerance] => (model, batches, tolerance.parse()?),
        _ => bail!("usage: mpnet-tract MODEL.onnx BATCHES.safetensors [TOLERANCE]"),
    };
    let model = tract_onnx::onnx().model_for_path(model)?;
    let outlets = model.output_outlets()?.iter();
    let outputs = outlets.map(|outlet| model.outlet_label(*outlet).map(str::to_owned));
    let outputs: Vec<String> = outputs
        .collect::<Option<_>>()
        .context("an output without a name")?;
    let batches = stored(batches.as_ref(), &outputs)?;
    let model = model.into_optimized()?.into_runnable()?;
    let mut worst = 0f32;
    for (index, batch) in batches.iter().enumerate() {
        let ours = batch.run(&model)?;
        for (ours, expected) in ours.iter().zip(&batch.outputs) {
            let apart = batch.difference(ours, expected)?;
            ensure!(
                apart <= tolerance,
                "{} of batch {index}, {:?}, is apart by {apart:.2e}",
                expected.name,
                batch.shape
            );
            worst = worst.max(apart);
        }
    }
    ensure!(
        !batches.is_empty() && !outputs.is_empty(),
        "nothing to compare"
    );
    println!(
        "tract: {} batches apart by at most {worst:.2e}",
        batches.len()
    );
    Ok(())
}
