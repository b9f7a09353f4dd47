//! Which tensors of a file make which native parameters.

use super::ConvertError;
use super::tensors::Tensor;
use super::weight_map::{BUCKETS, LM_HEAD, Layout, Mapped, POOLER, by_native, ignored};
use crate::initialize::initial_parameters;
use mpnet_graphs::model::config::ModelConfig;
use mpnet_graphs::model::parameters::parameters;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::path::Path;

/// Largest size of any dimension that is believed.
const MAX_SIZE: usize = 1 << 24;

/// Rows of two tensors that are compared at once.
const ROWS_AT_ONCE: usize = 1024;

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
    /// Zeros for a parameter that is in no file.
    fn fresh(name: &str, shape: &[usize]) -> Stored {
        Stored {
            name: name.to_owned(),
            shape: shape.to_vec(),
            content: Content::Fresh(vec![0.0; shape.iter().product()]),
        }
    }

    /// One that is `tensor`.
    pub(super) fn whole(name: String, tensor: Tensor) -> Stored {
        Stored {
            name,
            shape: tensor.shape.clone(),
            content: Content::Parts {
                parts: vec![tensor],
                added: None,
            },
        }
    }

    /// The elements of `rows` of the first axis.
    ///
    /// # Errors
    /// Where the file cannot be read, or holds NaN or infinity.
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
                        if !read.iter().all(|x| x.is_finite()) {
                            return Err(ConvertError::damaged(
                                part.file.path(),
                                format!(
                                    "its parameter '{}' holds numbers that are not finite (NaN or infinity), so \
                                     that nothing the model computes would be; take a checkpoint from before they \
                                     came up",
                                    self.name
                                ),
                            ));
                        }
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

/// A model's parameters among the tensors of a file.
#[derive(Debug)]
pub struct Plan {
    /// In the order of the model's parameters.
    pub parameters: Vec<Stored>,
    /// Weight and bias of the pooler, where the file has one.
    pub pooler: Option<[Stored; 2]>,
    /// Whether the file has no LM head: that of `parameters` is then fresh.
    pub fresh_head: bool,
    /// Tensors of the file that a model of the layout ties to another, and that differ from it here.
    pub untied: Vec<String>,
    /// What was made up or left out.
    pub notes: Vec<String>,
}

/// Finds every parameter of `config`'s model among `tensors`.
///
/// A file of the encoder alone gets a fresh LM head; one without relative positions gets zeros for them,
/// which change no score.
///
/// # Errors
/// Where tensors are missing or misshapen.
pub fn plan(
    path: &Path,
    layout: Layout,
    config: &ModelConfig,
    mut tensors: BTreeMap<String, Tensor>,
) -> Result<Plan, ConvertError> {
    check_sizes(path, config, tensors.len())?;
    let lines = by_native(layout, config);
    let mut notes = Vec::new();
    let mut missing = Vec::new();
    let mut stored = Vec::new();
    let mut untied = Vec::new();
    for parameter in parameters(config) {
        let Some(line) = lines.get(&parameter.name) else {
            missing.push(parameter.name);
            continue;
        };
        let found = match take_parts(line, &mut tensors) {
            Ok(found) => found,
            Err(_) if parameter.name == BUCKETS && layout != Layout::Native => {
                notes.push(format!(
                    "it has no {}: it was trained without relative positions, and zeros stand for them",
                    line.parts.join(", ")
                ));
                stored.push(Stored::fresh(&parameter.name, &parameter.shape));
                continue;
            }
            Err(absent) => {
                missing.extend(absent);
                continue;
            }
        };
        let mut expected = parameter.shape.clone();
        expected[0] /= found.parts.len();
        for (name, tensor) in &found.parts {
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
        if let Some((name, copy)) = &found.copy
            && let [(_, tensor)] = &found.parts[..]
            && !same_values(tensor, copy)?
        {
            untied.push((*name).to_owned());
        }
        stored.push(Stored {
            name: parameter.name,
            shape: parameter.shape,
            content: Content::Parts {
                parts: found.parts.into_iter().map(|(_, t)| t).collect(),
                added,
            },
        });
    }
    let mut fresh = false;
    if !missing.is_empty() {
        missing.sort();
        if missing != names_of_head(&lines) {
            return Err(ConvertError::Missing {
                path: path.to_owned(),
                names: missing,
            });
        }
        fresh = true;
        stored.extend(fresh_head(config));
    }
    let pooler = (layout == Layout::HuggingFace)
        .then(|| take_pooler(config.encoder_embed_dim, &mut tensors))
        .flatten();
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
    Ok(Plan {
        parameters: stored,
        pooler,
        fresh_head: fresh,
        untied,
        notes,
    })
}

/// Takes out a pooler for `width` hidden units, if there is one.
fn take_pooler(width: usize, tensors: &mut BTreeMap<String, Tensor>) -> Option<[Stored; 2]> {
    let shapes = [vec![width, width], vec![width]];
    let fits = POOLER.iter().zip(&shapes).all(|(name, shape)| {
        let found = tensors.get(*name);
        found.is_some_and(|tensor| tensor.shape == *shape && tensor.element.is_float())
    });
    if !fits {
        return None;
    }
    let mut take = |index: usize| {
        Some(Stored {
            name: POOLER[index].to_owned(),
            shape: shapes[index].clone(),
            content: Content::Parts {
                parts: vec![tensors.remove(POOLER[index])?],
                added: None,
            },
        })
    };
    Some([take(0)?, take(1)?])
}

/// Whether two tensors hold the same numbers.
fn same_values(a: &Tensor, b: &Tensor) -> Result<bool, ConvertError> {
    if a.shape != b.shape || !b.element.is_float() {
        return Ok(false);
    }
    let rows = a.rows();
    for start in (0..rows).step_by(ROWS_AT_ONCE) {
        let part = start..(start + ROWS_AT_ONCE).min(rows);
        if a.read(part.clone())? != b.read(part)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The tensors of a parameter, with their names.
struct Found<'a> {
    /// They hold its rows in turn.
    parts: Vec<(&'a str, Tensor)>,
    /// One that repeats it and should be equal to it.
    copy: Option<(&'a str, Tensor)>,
}

/// Takes out the tensors that hold a parameter with their names: its parts or, where there is none of
/// them, the one that repeats it. What is tied is taken out in any case.
///
/// # Errors
/// The parts that are missing.
fn take_parts<'a>(
    line: &'a Mapped,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<Found<'a>, Vec<String>> {
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
        (true, copy) if !found.is_empty() => Ok(Found { parts: found, copy }),
        (false, Some(tied)) if found.is_empty() => Ok(Found {
            parts: vec![tied],
            copy: None,
        }),
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
            format!(
                "its tensor '{name}' holds no numbers of 16, 32 or 64 bits with a floating point, as where a model \
                 is quantized: give the model that it was made from"
            ),
        )),
    }
}
