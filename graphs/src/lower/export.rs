//! The encoder for other programs: standard operators alone, with the parameters in the forms in which
//! the graph reads them, so that nothing is left to compute about them when it is loaded.

use crate::ir::{DType, GraphError, Type, ValueId, ValueKind};
use crate::onnx::export::{Encoded, ExportOptions, export};
use crate::ops::Graph;
use crate::ops::gelu::GELU_OPSET;
use crate::ops::{Kernel, Op};
use crate::passes::expand::expand;
use crate::passes::precision::lower_precision;
use crate::passes::{Pipeline, tidy};
use half::f16;
use std::collections::{HashMap, HashSet};
use std::io::Write;

/// The form of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Weights {
    #[default]
    F32,
    /// Weights and activations in f16, outputs in f32.
    F16,
    /// The weights of products in 8 bits with a scale for each output, embeddings in 8 bits with one for each
    /// row, the rest in f32.
    Int8,
    /// The same, and products by weights in 8 bits: each row of the left side is rounded when the model runs.
    Int8Dynamic,
}

/// Tables of narrower rows stay as they are: the relative bias, of which nothing would be saved.
const SMALLEST_ROW: usize = 32;

/// A stored tensor that is a form of a parameter.
#[derive(Debug, Clone)]
struct Derived {
    parameter: String,
    /// Rows of the parameter, where it is a part of it.
    rows: Option<(usize, usize)>,
    transposed: bool,
}

/// Optimises `graph` for other programs and writes it; `parameter` gives the values of the native
/// parameter of that name.
///
/// # Errors
/// Where the graph needs more than the standard's operators, a parameter cannot be had, or a file not
/// be written.
pub fn lower(
    mut graph: Graph,
    name: &str,
    weights: Weights,
    options: &ExportOptions,
    parameter: &mut dyn FnMut(&str) -> Result<Vec<f32>, String>,
    model: &mut dyn Write,
    outside: &mut dyn Write,
) -> Result<(), GraphError> {
    pipeline(weights, options.opset).run(&mut graph)?;
    let derived = derive_parameters(&mut graph);
    let of_products = weights_of_products(&graph);
    let tables = tables(&graph);
    let types: HashMap<String, Type> = graph
        .parameters()
        .iter()
        .map(|id| (graph.label(*id), graph.ty(*id).clone()))
        .collect();
    let mut encode = |name: &str| -> Result<Encoded, GraphError> {
        let form = derived.get(name).cloned().unwrap_or(Derived {
            parameter: name.to_owned(),
            rows: None,
            transposed: false,
        });
        let failed = |reason: String| GraphError::Emit {
            op: "parameter",
            reason,
        };
        let ty = types
            .get(name)
            .ok_or_else(|| failed(format!("'{name}' has no type")))?;
        let values = parameter(&form.parameter).map_err(failed)?;
        let values = form.apply(values, ty);
        let expected: usize = ty.shape.iter().filter_map(|d| d.as_const()).product();
        if values.len() != expected {
            return Err(failed(format!(
                "'{name}' has {} elements, not {expected}",
                values.len()
            )));
        }
        Ok(match (weights, ty.dtype) {
            (Weights::Int8 | Weights::Int8Dynamic, _) if of_products.contains(name) => {
                quantize(&values, ty, weights == Weights::Int8Dynamic)
            }
            (Weights::Int8 | Weights::Int8Dynamic, _) if tables.contains(name) => {
                quantize_rows(&values, ty)
            }
            (_, DType::F16) => Encoded::Plain(
                values
                    .iter()
                    .flat_map(|v| f16::from_f32(*v).to_le_bytes())
                    .collect(),
            ),
            (Weights::F32 | Weights::F16 | Weights::Int8 | Weights::Int8Dynamic, _) => {
                Encoded::Plain(values.iter().flat_map(|v| v.to_le_bytes()).collect())
            }
        })
    };
    export(&graph, name, options, &mut encode, model, outside)
}

/// The passes that make the graph that is written from that of the encoder.
pub fn pipeline(weights: Weights, opset: i64) -> Pipeline {
    Pipeline::default()
        .stage("tidy", tidy())
        .pass("expand", move |graph| {
            let standard = |op: &Op| {
                op.operator().kernels().contains(&Kernel::Standard)
                    || (matches!(op, Op::Gelu(_)) && opset >= GELU_OPSET)
            };
            expand(graph, &standard)
        })
        .stage("tidy_expanded", tidy())
        .when(weights == Weights::F16, |pipeline| {
            pipeline
                .pass("lower_precision", |graph| {
                    lower_precision(graph, DType::F16)
                })
                .stage("tidy_lowered", tidy())
        })
}

impl Derived {
    /// This form, of type `ty`, of the parameter's `values`.
    fn apply(&self, mut values: Vec<f32>, ty: &Type) -> Vec<f32> {
        let sizes: Vec<usize> = ty.shape.iter().filter_map(|d| d.as_const()).collect();
        let [inner, outer] = sizes[..] else {
            if let Some((start, end)) = self.rows {
                values.truncate(end);
                values.drain(..start.min(values.len()));
            }
            return values;
        };
        let width = if self.transposed { inner } else { outer };
        if let Some((start, end)) = self.rows {
            values.truncate(end * width);
            values.drain(..(start * width).min(values.len()));
        }
        if !self.transposed || values.len() != inner * outer {
            return values;
        }
        // From [outer, inner] to [inner, outer].
        let mut turned = vec![0.0; values.len()];
        for (row, line) in values.chunks_exact(inner).enumerate() {
            for (column, value) in line.iter().enumerate() {
                turned[column * outer + row] = *value;
            }
        }
        turned
    }
}

/// Weights `[K, N]` in 8 bits, each of the N outputs with the scale of its largest weight.
fn quantize(values: &[f32], ty: &Type, multiplied: bool) -> Encoded {
    let outputs = ty.shape.last().and_then(|d| d.as_const()).unwrap_or(1);
    let mut largest = vec![0f32; outputs];
    for row in values.chunks_exact(outputs) {
        for (largest, value) in largest.iter_mut().zip(row) {
            *largest = largest.max(value.abs());
        }
    }
    let scales: Vec<f32> = largest.into_iter().map(scale).collect();
    let rows = values.chunks_exact(outputs);
    let whole = rows.flat_map(|row| {
        row.iter()
            .zip(&scales)
            .map(|(v, scale)| in_steps(*v, *scale))
    });
    Encoded::Int8 {
        values: whole.collect(),
        scales,
        multiplied,
    }
}

/// What one step of 8 bits stands for where the largest of several numbers is `largest`.
fn scale(largest: f32) -> f32 {
    if largest == 0.0 { 1.0 } else { largest / 127.0 }
}

/// `value` in steps of `scale`, in 8 bits.
fn in_steps(value: f32, scale: f32) -> u8 {
    (value / scale).round_ties_even() as i8 as u8
}

/// A table in 8 bits, each row with the scale of its largest element.
fn quantize_rows(values: &[f32], ty: &Type) -> Encoded {
    let width = ty.shape.last().and_then(|d| d.as_const()).unwrap_or(1);
    let rows = values.chunks_exact(width);
    let largest = |row: &[f32]| row.iter().fold(0f32, |largest, v| largest.max(v.abs()));
    let scales: Vec<f32> = rows.clone().map(|row| scale(largest(row))).collect();
    let whole = rows
        .zip(&scales)
        .flat_map(|(row, scale)| row.iter().map(|value| in_steps(*value, *scale)));
    Encoded::Int8Rows {
        values: whole.collect(),
        scales,
    }
}

/// Turns every part, transposition and conversion of a parameter that the graph computes into a
/// parameter of its own, and forgets parameters that nobody reads.
fn derive_parameters(graph: &mut Graph) -> HashMap<String, Derived> {
    let mut forms: HashMap<ValueId, (String, Derived)> = graph
        .parameters()
        .iter()
        .map(|id| {
            let name = graph.label(*id);
            let whole = Derived {
                parameter: name.clone(),
                rows: None,
                transposed: false,
            };
            (*id, (name, whole))
        })
        .collect();
    let uses = graph.use_counts();
    let mut nodes = Vec::new();
    for node in std::mem::take(&mut graph.nodes) {
        let known = node.inputs.first().and_then(|input| forms.get(input));
        let Some((name, form)) = known.cloned().filter(|_| node.inputs.len() == 1) else {
            nodes.push(node);
            continue;
        };
        // What is read in another form as well would be stored twice.
        let alone = uses[node.inputs[0].0] == 1;
        let made: Vec<(String, Derived)> = match &node.op {
            Op::Split(split) if split.axis == 0 && form.rows.is_none() && !form.transposed => {
                let mut end = 0;
                let part = |(index, size): (usize, &usize)| {
                    let start = end;
                    end += size;
                    let part = Derived {
                        rows: Some((start, end)),
                        ..form.clone()
                    };
                    (format!("{name}.{index}"), part)
                };
                split.sizes.iter().enumerate().map(part).collect()
            }
            Op::Transpose(transpose) if transpose.perm == [1, 0] && alone => {
                let turned = Derived {
                    transposed: !form.transposed,
                    ..form.clone()
                };
                vec![(format!("{name}.transposed"), turned)]
            }
            Op::Cast(_) if alone => vec![(format!("{name}.f16"), form.clone())],
            _ => Vec::new(),
        };
        if made.is_empty() {
            nodes.push(node);
            continue;
        }
        for (output, (name, form)) in node.outputs.iter().zip(made) {
            let value = &mut graph.values[output.0];
            value.kind = ValueKind::Parameter;
            value.name = Some(name.clone());
            graph.parameters.push(*output);
            forms.insert(*output, (name, form));
        }
    }
    graph.nodes = nodes;
    let uses = graph.use_counts();
    graph.parameters.retain(|id| uses[id.0] > 0);
    forms.into_values().collect()
}

/// The parameters that are read as the right side of products alone.
fn weights_of_products(graph: &Graph) -> HashSet<String> {
    let mut names = HashSet::new();
    let uses = graph.use_counts();
    for node in graph.nodes() {
        if let (Op::MatMul(_), [_, right]) = (&node.op, &node.inputs[..])
            && graph.value(*right).kind == ValueKind::Parameter
            && uses[right.0] == 1
        {
            names.insert(graph.label(*right));
        }
    }
    names
}

/// The parameters that are read row by row alone.
fn tables(graph: &Graph) -> HashSet<String> {
    let uses = graph.use_counts();
    let mut read: HashMap<ValueId, usize> = HashMap::new();
    for node in graph.nodes() {
        if let (Op::Gather(_), [table, _]) = (&node.op, &node.inputs[..])
            && graph.value(*table).kind == ValueKind::Parameter
            && graph.ty(*table).rank() == 2
            && graph.ty(*table).shape[1].as_const() >= Some(SMALLEST_ROW)
        {
            *read.entry(*table).or_insert(0) += 1;
        }
    }
    let alone = |(table, count): &(ValueId, usize)| uses[table.0] == *count;
    let names = read.into_iter().filter(alone);
    names.map(|(table, _)| graph.label(table)).collect()
}
