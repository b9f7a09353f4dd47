//! The weights of a HuggingFace folder, one tensor at a time.

use super::json::write_json;
use super::options::{HfOptions, OutputHead, TaskHead};
use super::plan::Stored;
use super::source::Source;
use super::weight_map::{BY_VOCABULARY, Layout, POOLER, by_native, in_encoder};
use super::{ConvertError, StreamFailure};
use crate::arrays::{Planned, stream_safetensors};
use crate::initialize::normal;
use rand::SeedableRng;
use rand_xoshiro::Xoshiro256PlusPlus;
use safetensors::Dtype;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

/// The weights in one file.
pub const MODEL_FILE: &str = "model.safetensors";
/// The list of the weights' shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";
/// Seed of a pooler that the source does not have.
const POOLER_SEED: u64 = 12_345;

/// A tensor of the folder and where its elements come from.
pub(super) struct Output<'a> {
    pub planned: Planned,
    content: Content<'a>,
}

enum Content<'a> {
    /// These rows of a parameter.
    Stored(&'a Stored, Range<usize>),
    Made(Vec<f32>),
}

/// Every tensor of the folder, in the order of their names. What HuggingFace has no place for is left
/// out.
pub(super) fn outputs<'a>(
    source: &'a Source,
    options: &'a HfOptions,
    vocabulary: usize,
) -> Vec<Output<'a>> {
    let dtype = options.dtype.dtype();
    let padded = source.model.padded_vocab_size;
    let mut lines = by_native(Layout::HuggingFace, &source.model);
    let mut outputs = Vec::new();
    for stored in &source.parameters {
        let Some(line) = lines.remove(&stored.name) else {
            continue;
        };
        let of_vocabulary = BY_VOCABULARY.contains(&stored.name.as_str());
        let rows = match of_vocabulary && stored.shape[0] == padded {
            true => vocabulary,
            false => stored.shape[0],
        };
        let share = rows / line.parts.len().max(1);
        for (index, name) in line.parts.into_iter().enumerate() {
            let mut shape = stored.shape.clone();
            shape[0] = share;
            outputs.push(Output {
                planned: Planned { name, dtype, shape },
                content: Content::Stored(stored, index * share..(index + 1) * share),
            });
        }
    }
    match &options.head {
        OutputHead::MaskedLm => {}
        OutputHead::None | OutputHead::Sentence(_) => {
            outputs = encoder_alone(outputs);
            outputs.extend(pooler(source, dtype));
        }
        OutputHead::Task(head) => {
            outputs.retain(|output| in_encoder(&output.planned.name).is_some());
            outputs.extend(task_head(source, head, dtype));
        }
    }
    outputs.sort_by(|a, b| a.planned.name.cmp(&b.planned.name));
    outputs
}

/// The encoder's tensors under the names of an `MPNetModel`.
fn encoder_alone(outputs: Vec<Output>) -> Vec<Output> {
    let mut kept = Vec::new();
    for mut output in outputs {
        if let Some(name) = in_encoder(&output.planned.name) {
            output.planned.name = name.to_owned();
            kept.push(output);
        }
    }
    kept
}

/// What a task has trained beside the encoder.
fn task_head<'a>(
    source: &'a Source,
    head: &'a TaskHead,
    dtype: Dtype,
) -> impl Iterator<Item = Output<'a>> {
    let parameters = source.head.iter();
    let parameters = parameters.filter(|stored| head.parameters.contains(&stored.name));
    parameters.map(move |stored| Output {
        planned: Planned {
            name: stored.name.clone(),
            dtype,
            shape: stored.shape.clone(),
        },
        content: Content::Stored(stored, 0..stored.shape.first().copied().unwrap_or(1)),
    })
}

/// The layer that `MPNetModel` has behind the encoder: the source's or, as pretraining knows nothing of
/// it, a fresh one, as transformers would make it.
fn pooler(source: &Source, dtype: Dtype) -> Vec<Output<'_>> {
    let planned = |name: &str, shape: &[usize]| Planned {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
    };
    if let Some(stored) = &source.pooler {
        let outputs = POOLER.into_iter().zip(stored);
        let outputs = outputs.map(|(name, stored)| Output {
            planned: planned(in_encoder(name).unwrap_or(name), &stored.shape),
            content: Content::Stored(stored, 0..stored.shape[0]),
        });
        return outputs.collect();
    }
    let width = source.model.encoder_embed_dim;
    let mut rng = Xoshiro256PlusPlus::seed_from_u64(POOLER_SEED);
    let fresh = [
        (vec![width, width], normal(&mut rng, width * width)),
        (vec![width], vec![0.0; width]),
    ];
    let outputs = POOLER.into_iter().zip(fresh);
    let outputs = outputs.map(|(name, (shape, values))| Output {
        planned: planned(in_encoder(name).unwrap_or(name), &shape),
        content: Content::Made(values),
    });
    outputs.collect()
}

/// Writes the weights into one file, or into shards with an index.
pub(super) fn write_weights(
    folder: &Path,
    outputs: &[Output],
    options: &HfOptions,
) -> Result<(), ConvertError> {
    let mut shards: Vec<(u64, &[Output])> = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (index, output) in outputs.iter().enumerate() {
        let bytes = output.planned.bytes() as u64;
        if size > 0 && size + bytes > options.max_shard_size {
            shards.push((size, &outputs[start..index]));
            (start, size) = (index, 0);
        }
        size += bytes;
    }
    shards.push((size, &outputs[start..]));
    let total: u64 = shards.iter().map(|(size, _)| size).sum();
    let mut weight_map = BTreeMap::new();
    let count = shards.len();
    for (index, (_, shard)) in shards.into_iter().enumerate() {
        let name = match count {
            1 => MODEL_FILE.to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", index + 1),
        };
        weight_map.extend(
            shard
                .iter()
                .map(|o| (o.planned.name.as_str(), name.clone())),
        );
        let path = folder.join(&name);
        let planned: Vec<Planned> = shard.iter().map(|o| o.planned.clone()).collect();
        let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
        stream_safetensors(&path, &planned, metadata, |index| {
            let output = &shard[index];
            let bytes = match &output.content {
                Content::Stored(stored, rows) => options.dtype.encode(&stored.read(rows.clone())?),
                Content::Made(values) => options.dtype.encode(values),
            };
            Ok::<_, StreamFailure>(bytes)
        })
        .map_err(|failure| failure.of(&path))?;
    }
    if count > 1 {
        let index = serde_json::json!({
            "metadata": { "total_size": total },
            "weight_map": weight_map,
        });
        write_json(folder, INDEX_FILE, &index)?;
    }
    Ok(())
}
