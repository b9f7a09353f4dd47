//! A model that holds its parameters, in the file or beside it, for programs that are not ours.

use super::emitter::{Attribute, Emit, Emitter, onnx_type};
use super::model::{Body, body, value_info_named};
use super::proto::{
    DataLocation, DataType, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TypeValue, ValueInfoProto,
};
use super::write::write;
use crate::ir::{DType, Graph, GraphError, verify};
use std::io::Write;

/// Smaller tensors stay in the model's own file.
const SMALLEST_OUTSIDE: usize = 1024;
/// Every tensor outside begins at a multiple of this, so that it can be mapped.
const ALIGNMENT: u64 = 4096;

/// What is written, beside the graph.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Version of the standard operators.
    pub opset: i64,
    /// Names of the symbols B and L.
    pub dims: [&'static str; 2],
    /// Keys and values for whoever reads the file.
    pub metadata: Vec<(String, String)>,
    /// Name of the file that holds the large tensors, where they are not in the model's own.
    pub outside: Option<String>,
    /// Inputs are i32 instead of i64.
    pub int32_inputs: bool,
}

/// An encoded parameter.
#[derive(Debug, Clone, PartialEq)]
pub enum Encoded {
    /// Of the parameter's own type.
    Plain(Vec<u8>),
    /// 8-bit integers with a scale for each index of the last axis; where `multiplied`, products are
    /// computed in 8 bits, too.
    Int8 {
        values: Vec<u8>,
        scales: Vec<f32>,
        multiplied: bool,
    },
    /// A table in 8-bit integers with a scale for each row.
    Int8Rows { values: Vec<u8>, scales: Vec<f32> },
}

/// The version of the file format that came with an opset.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        23.. => 11,
    }
}

/// Writes `graph`, whose nodes are of the standard alone, to `model`, and large tensors to `outside`
/// where the options name such a file. `parameter` encodes the parameter of that name.
///
/// # Errors
/// Where the graph is invalid, a parameter cannot be had, or a file not be written.
pub fn export<O: Emit>(
    graph: &Graph<O>,
    name: &str,
    options: &ExportOptions,
    parameter: &mut dyn FnMut(&str) -> Result<Encoded, GraphError>,
    model: &mut dyn Write,
    outside: &mut dyn Write,
) -> Result<(), GraphError> {
    verify(graph, "the last pass, ready to export")?;
    let mut store = Store {
        file: options.outside.clone(),
        outside,
        offset: 0,
        tensors: Vec::new(),
    };
    let mut emitter = Emitter::new(graph);
    emitter.export_opset = Some(options.opset);
    for id in graph.parameters() {
        let name = graph.label(*id);
        let ty = graph.ty(*id);
        let dims: Vec<i64> = ty
            .shape
            .iter()
            .map(|d| d.as_const().unwrap_or_default() as i64)
            .collect();
        match parameter(&name)? {
            Encoded::Plain(bytes) => store.add(&name, onnx_type(ty.dtype), &dims, bytes)?,
            Encoded::Int8 {
                values,
                scales,
                multiplied,
            } => {
                let int8 = DataType::Int8 as i32;
                let (stored, scale) = (format!("{name}.int8"), format!("{name}.scale"));
                let axis = dims.len().saturating_sub(1);
                let count = scales.len() as i64;
                let scales = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
                store.add(&stored, int8, &dims, values)?;
                store.add(&scale, onnx_type(DType::F32), &[count], scales)?;
                if multiplied {
                    emitter.products.insert(name, [stored, scale]);
                    continue;
                }
                emitter.standard_with(
                    "DequantizeLinear",
                    &[stored, scale],
                    std::slice::from_ref(&name),
                    [("axis", Attribute::Int(axis as i64))],
                );
            }
            Encoded::Int8Rows { values, scales } => {
                let int8 = DataType::Int8 as i32;
                let (stored, scale) = (format!("{name}.int8"), format!("{name}.scale"));
                let count = scales.len() as i64;
                let scales = scales.iter().flat_map(|s| s.to_le_bytes()).collect();
                store.add(&stored, int8, &dims, values)?;
                store.add(&scale, onnx_type(DType::F32), &[count, 1], scales)?;
                emitter.tables.insert(name, [stored, scale]);
            }
        }
    }
    let Body { emitter, names } = body(graph, emitter)?;
    let info = |name: &str, id| value_info_named(name, graph.ty(id), options.dims);
    let inputs = graph.inputs().iter();
    let mut input: Vec<ValueInfoProto> = inputs.map(|v| info(&names[v.0], *v)).collect();
    let mut node = emitter.nodes;
    if options.int32_inputs {
        take_int32(&mut input, &mut node);
    }
    // Types of values between nodes are left to readers: with them ONNX Runtime 1.32 fuses every sum before a layer
    // normalization, and its kernel of the two takes 6 % more of a processor's time.
    let mut initializer = store.tensors;
    initializer.extend(emitter.initializers);
    let proto = GraphProto {
        name: name.to_owned(),
        node,
        initializer,
        input,
        output: graph.outputs().iter().map(|(n, v)| info(n, *v)).collect(),
    };
    let proto = ModelProto {
        ir_version: ir_version(options.opset),
        producer_name: "mpnet".to_owned(),
        producer_version: env!("CARGO_PKG_VERSION").to_owned(),
        graph: Some(proto),
        opset_import: vec![OperatorSetIdProto {
            domain: String::new(),
            version: options.opset,
        }],
        metadata_props: options.metadata.iter().map(entry).collect(),
    };
    write(proto, model)
}

/// Makes every i64 input one of i32, which the first nodes convert.
fn take_int32(inputs: &mut [ValueInfoProto], nodes: &mut Vec<NodeProto>) {
    let mut casts = Vec::new();
    for input in inputs {
        let Some(TypeValue::Tensor(tensor)) = &mut input.r#type.value else {
            continue;
        };
        if tensor.elem_type != DataType::Int64 as i32 {
            continue;
        }
        tensor.elem_type = DataType::Int32 as i32;
        let whole = format!("{}.int64", input.name);
        for name in nodes.iter_mut().flat_map(|node| &mut node.input) {
            if *name == input.name {
                name.clone_from(&whole);
            }
        }
        casts.push(NodeProto {
            input: vec![input.name.clone()],
            output: vec![whole],
            name: format!("Cast_{}", input.name),
            op_type: "Cast".to_owned(),
            attribute: vec![Attribute::Int(i64::from(onnx_type(DType::I64))).proto("to")],
            domain: String::new(),
        });
    }
    nodes.splice(0..0, casts);
}

fn entry((key, value): &(String, String)) -> StringStringEntryProto {
    StringStringEntryProto {
        key: key.clone(),
        value: value.clone(),
    }
}

/// The initializers, some of them elsewhere.
struct Store<'a> {
    file: Option<String>,
    outside: &'a mut dyn Write,
    offset: u64,
    tensors: Vec<TensorProto>,
}

impl Store<'_> {
    fn add(
        &mut self,
        name: &str,
        data_type: i32,
        dims: &[i64],
        bytes: Vec<u8>,
    ) -> Result<(), GraphError> {
        let mut tensor = TensorProto {
            name: name.to_owned(),
            data_type,
            dims: dims.to_vec(),
            ..TensorProto::default()
        };
        match self
            .file
            .clone()
            .filter(|_| bytes.len() >= SMALLEST_OUTSIDE)
        {
            None => tensor.raw_data = Some(bytes),
            Some(file) => {
                let start = self.offset.next_multiple_of(ALIGNMENT);
                let gap = vec![0; (start - self.offset) as usize];
                let written = self.outside.write_all(&gap);
                written
                    .and_then(|()| self.outside.write_all(&bytes))
                    .map_err(|e| GraphError::Emit {
                        op: "model",
                        reason: format!("writing {file}: {e}"),
                    })?;
                let place = [
                    ("location", file),
                    ("offset", start.to_string()),
                    ("length", bytes.len().to_string()),
                ];
                tensor.set_data_location(DataLocation::External);
                tensor.external_data = place
                    .map(|(key, value)| entry(&(key.to_owned(), value)))
                    .into();
                self.offset = start + bytes.len() as u64;
            }
        }
        self.tensors.push(tensor);
        Ok(())
    }
}
