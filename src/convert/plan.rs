//! Which tensors of a file make which native parameters.

use super::ConvertError;
use super::tensors::Tensor;
use super::weight_map::{LM_HEAD, Layout, Mapped, by_native, ignored};
use crate::initialize::initial_parameters;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::parameters;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

/// Largest size of any dimension that is believed.
const MAX_SIZE: usize = 1 << 24;

/// Seed of an LM head that a file lacks.
const FRESH_SEED: u64 = 12_345;

/// A native parameter and where its elements are.
#[derive(Debug)]
pub struct Stored {
    pub name: String,
    pub shape: Vec<usize>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// Parts that hold the rows in turn, and what is added to every row.
    Parts {
        parts: Vec<Tensor>,
        added: Option<Vec<f32>>,
    },
    /// Not in the file.
    Fresh(Vec<f32>),
}

impl Stored {
    /// The elements of `rows` of the first axis.
    ///
    /// # Errors
    /// Where the file cannot be read.
    pub fn read(&self, rows: Range<usize>) -> Result<Vec<f32>, ConvertError> {
        let width: usize = self.shape.iter().skip(1).product();
        match &self.content {
            Content::Fresh(values) => Ok(values[rows.start * width..rows.end * width].to_vec()),
            Content::Parts { parts, added } => {
                let share = self.shape[0] / parts.len().max(1);
                let mut values = Vec::new();
                for (index, part) in parts.iter().enumerate() {
                    let within = |row: usize| row.clamp(index * share, (index + 1) * share);
                    let (start, end) = (within(rows.start), within(rows.end));
                    if start < end {
                        let read = part.read(start - index * share..end - index * share)?;
                        match values.is_empty() {
                            true => values = read,
                            false => values.extend(read),
                        }
                    }
                }
                if let Some(added) = added {
                    for row in values.chunks_mut(width.max(1)) {
                        row.iter_mut().zip(added).for_each(|(x, y)| *x += y);
                    }
                }
                Ok(values)
            }
        }
    }
}

/// Finds every parameter of `config`'s model among `tensors`, and says what was made up or left out.
///
/// A file of the encoder alone gets a fresh LM head.
///
/// # Errors
/// Where tensors are missing or misshapen.
pub fn plan(
    path: &Path,
    layout: Layout,
    config: &ModelConfig,
    mut tensors: BTreeMap<String, Tensor>,
) -> Result<(Vec<Stored>, Vec<String>), ConvertError> {
    check_sizes(path, config, tensors.len())?;
    let lines = by_native(layout, config);
    let mut notes = Vec::new();
    let mut missing = Vec::new();
    let mut stored = Vec::new();
    for parameter in parameters(config) {
        let Some(line) = lines.get(&parameter.name) else {
            missing.push(parameter.name);
            continue;
        };
        let found = match take_parts(line, &mut tensors) {
            Ok(found) => found,
            Err(absent) => {
                missing.extend(absent);
                continue;
            }
        };
        let mut expected = parameter.shape.clone();
        expected[0] /= found.len();
        for (name, tensor) in &found {
            check_tensor(path, name, tensor, &expected)?;
        }
        let folded = line.folded.as_ref();
        let added = match folded.and_then(|name| Some((name, tensors.remove(name)?))) {
            Some((name, row)) => {
                check_tensor(path, name, &row, &[1, config.encoder_embed_dim])?;
                notes.push(format!(
                    "{name} is added to every row of {}",
                    parameter.name
                ));
                Some(row.read(0..1)?)
            }
            None => None,
        };
        stored.push(Stored {
            name: parameter.name,
            shape: parameter.shape,
            content: Content::Parts {
                parts: found.into_iter().map(|(_, tensor)| tensor).collect(),
                added,
            },
        });
    }
    if !missing.is_empty() {
        missing.sort();
        if missing != names_of_head(&lines) {
            return Err(ConvertError::Missing {
                path: path.to_owned(),
                names: missing,
            });
        }
        notes.push(
            "it has no LM head: that of the new checkpoint is fresh and knows nothing".into(),
        );
        stored.extend(fresh_head(config));
    }
    let left: Vec<String> = tensors
        .into_keys()
        .filter(|name| !ignored(layout, name))
        .collect();
    if !left.is_empty() {
        notes.push(format!(
            "not a part of this model, left out: {}",
            left.join(", ")
        ));
    }
    Ok((stored, notes))
}

/// Takes out the tensors that hold a parameter with their names: its parts or, where there is none of
/// them, the one that repeats it. What is tied is taken out in any case.
///
/// # Errors
/// The parts that are missing.
fn take_parts<'a>(
    line: &'a Mapped,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Vec<(&'a str, Tensor)>, Vec<String>> {
    let mut take = |name: &'a String| Some((name.as_str(), tensors.remove(name)?));
    let tied = line.tied.as_ref().and_then(&mut take);
    let mut found = Vec::new();
    let mut absent = Vec::new();
    for name in &line.parts {
        match take(name) {
            Some(part) => found.push(part),
            None => absent.push(name.clone()),
        }
    }
    match (absent.is_empty(), tied) {
        (true, _) if !found.is_empty() => Ok(found),
        (false, Some(tied)) if found.is_empty() => Ok(vec![tied]),
        // A layout that has no place for the parameter has no name for it either.
        (true, _) => Err(vec![line.native.clone()]),
        (false, _) => Err(absent),
    }
}

/// The tensors of the language model head, sorted.
fn names_of_head(lines: &HashMap<String, Mapped>) -> Vec<String> {
    let head = lines.values().filter(|l| l.native.starts_with(LM_HEAD));
    let mut names: Vec<String> = head.flat_map(|l| l.parts.clone()).collect();
    names.sort();
    names
}

/// A language model head that knows nothing.
fn fresh_head(config: &ModelConfig) -> impl Iterator<Item = Stored> {
    let fresh = initial_parameters(config, FRESH_SEED).into_iter();
    let head = fresh.filter(|p| p.name.starts_with(LM_HEAD));
    head.map(|p| Stored {
        name: p.name,
        shape: p.shape,
        content: Content::Fresh(p.values),
    })
}

/// Refuses sizes that no model has before anything is made of them.
fn check_sizes(path: &Path, config: &ModelConfig, tensors: usize) -> Result<(), ConvertError> {
    let sizes = [
        config.encoder_embed_dim,
        config.encoder_ffn_dim,
        config.max_positions,
        config.padded_vocab_size,
        config.relative_attention_num_buckets,
        config.relative_attention_max_distance,
    ];
    if sizes.iter().any(|&size| size > MAX_SIZE) || config.encoder_layers > tensors {
        return Err(ConvertError::model(
            path,
            format!("it describes {config:?}, with {tensors} tensors"),
        ));
    }
    config
        .validate()
        .map_err(|e| ConvertError::model(path, e.to_string()))
}

fn check_tensor(
    path: &Path,
    name: &str,
    tensor: &Tensor,
    expected: &[usize],
) -> Result<(), ConvertError> {
    if tensor.shape != expected {
        return Err(ConvertError::Shape {
            path: path.to_owned(),
            name: name.to_owned(),
            found: tensor.shape.clone(),
            expected: expected.to_vec(),
        });
    }
    match tensor.element.is_float() {
        true => Ok(()),
        false => Err(ConvertError::damaged(
            path,
            format!("its tensor '{name}' holds no floating-point numbers"),
        )),
    }
}
