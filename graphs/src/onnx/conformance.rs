//! Checks emitted models against ONNX's rules for the declared opset, for tests.

use super::emitter::CONTRIB_DOMAIN;
use super::kernel::Kernel;
use super::model::{IR_VERSION, OPSET};
use super::presence;
use super::proto::{
    AttributeProto, AttributeType, DataType, DimensionValue, GraphProto, ModelProto, NodeProto,
    TensorProto, TypeValue, ValueInfoProto,
};
use mpnet_plan::OWN_DOMAIN;
use prost::Message;
use std::collections::HashSet;
use std::ops::RangeInclusive;

/// A standard operator in the form that is emitted.
struct Standard {
    op_type: &'static str,
    /// The opset that brought this form.
    since: i64,
    inputs: RangeInclusive<usize>,
    attributes: &'static [&'static str],
}

const fn standard(
    op_type: &'static str,
    since: i64,
    inputs: RangeInclusive<usize>,
    attributes: &'static [&'static str],
) -> Standard {
    Standard {
        op_type,
        since,
        inputs,
        attributes,
    }
}

/// From ONNX's operator schemas.
const STANDARD: &[Standard] = &[
    standard("Add", 14, 2..=2, &[]),
    standard("And", 7, 2..=2, &[]),
    standard(
        "ArgMax",
        13,
        1..=1,
        &["axis", "keepdims", "select_last_index"],
    ),
    standard("Cast", 13, 1..=1, &["to"]),
    standard("Concat", 13, 1..=usize::MAX, &["axis"]),
    standard("CumSum", 14, 2..=2, &["exclusive", "reverse"]),
    standard("DequantizeLinear", 13, 2..=3, &["axis"]),
    standard("Div", 14, 2..=2, &[]),
    standard("Equal", 13, 2..=2, &[]),
    standard("Erf", 13, 1..=1, &[]),
    standard("Exp", 13, 1..=1, &[]),
    standard("Expand", 13, 2..=2, &[]),
    standard("Gather", 13, 2..=2, &["axis"]),
    standard("GatherElements", 13, 2..=2, &["axis"]),
    standard("Identity", 16, 1..=1, &[]),
    standard(
        "LayerNormalization",
        17,
        2..=3,
        &["axis", "epsilon", "stash_type"],
    ),
    standard("Less", 13, 2..=2, &[]),
    standard("LogSoftmax", 13, 1..=1, &["axis"]),
    standard("MatMul", 13, 2..=2, &[]),
    standard("Mul", 14, 2..=2, &[]),
    standard("Neg", 13, 1..=1, &[]),
    standard("Pad", 18, 2..=4, &["mode"]),
    standard("Range", 11, 3..=3, &[]),
    standard(
        "ReduceSum",
        13,
        1..=2,
        &["keepdims", "noop_with_empty_axes"],
    ),
    standard(
        "ReduceSumSquare",
        18,
        1..=2,
        &["keepdims", "noop_with_empty_axes"],
    ),
    standard("Relu", 14, 1..=1, &[]),
    standard("Reshape", 14, 2..=2, &["allowzero"]),
    standard("ScatterElements", 18, 3..=3, &["axis", "reduction"]),
    standard("ScatterND", 18, 3..=3, &["reduction"]),
    standard("Shape", 15, 1..=1, &["start", "end"]),
    standard("Sigmoid", 13, 1..=1, &[]),
    standard("Slice", 13, 3..=5, &[]),
    standard("Softmax", 13, 1..=1, &["axis"]),
    standard("Split", 18, 1..=2, &["axis", "num_outputs"]),
    standard("Sqrt", 13, 1..=1, &[]),
    standard("Squeeze", 13, 1..=1, &[]),
    standard("Sub", 14, 2..=2, &[]),
    standard("Tanh", 13, 1..=1, &[]),
    standard("Transpose", 13, 1..=1, &["perm"]),
    standard("Unsqueeze", 13, 2..=2, &["axes"]),
    standard("Where", 16, 3..=3, &[]),
];

fn decode(model: &[u8]) -> ModelProto {
    ModelProto::decode(model).expect("a protobuf model")
}

/// The graph of a model that this crate emitted.
pub(crate) fn graph_of(model: &[u8]) -> GraphProto {
    decode(model).graph.expect("a graph")
}

/// Checks versions, that every node is one of the declared opset in a form which that has or has one of
/// the kernels `declared`, and that values are defined before their use and once.
pub(crate) fn check(model: &[u8], declared: &[Kernel]) {
    presence::check(model);
    let model = decode(model);
    assert_eq!(model.ir_version, IR_VERSION);
    let opsets: Vec<(&str, i64)> = model
        .opset_import
        .iter()
        .map(|o| (o.domain.as_str(), o.version))
        .collect();
    let mut expected = vec![("", OPSET), (CONTRIB_DOMAIN, 1)];
    let graph = model.graph.as_ref().expect("a graph");
    if graph.node.iter().any(|n| n.domain == OWN_DOMAIN) {
        expected.push((OWN_DOMAIN, 1));
    }
    assert_eq!(opsets, expected);
    let mut defined = HashSet::new();
    let inputs = graph.input.iter().map(|i| &i.name);
    for name in inputs.chain(graph.initializer.iter().map(|i| &i.name)) {
        assert!(defined.insert(name.as_str()), "'{name}' is defined twice");
    }
    for node in &graph.node {
        check_node(node, declared);
        // An input of ours that is left out has no name.
        let given = |name: &&String| node.domain != OWN_DOMAIN || !name.is_empty();
        for name in node.input.iter().filter(given) {
            assert!(
                defined.contains(name.as_str()),
                "{} reads '{name}'",
                node.name
            );
        }
        for name in &node.output {
            assert!(defined.insert(name), "{} defines '{name}' again", node.name);
        }
    }
    for output in &graph.output {
        assert!(
            defined.contains(output.name.as_str()),
            "no '{}'",
            output.name
        );
    }
}

fn check_node(node: &NodeProto, declared: &[Kernel]) {
    let op_type = node.op_type.as_str();
    let is_declared = |is: &dyn Fn(&Kernel) -> bool| {
        assert!(declared.iter().any(is), "{op_type} is none of {declared:?}");
    };
    match node.domain.as_str() {
        "" => {
            let known = STANDARD.iter().find(|s| s.op_type == op_type);
            let schema = known.unwrap_or_else(|| panic!("{op_type} is no standard operator"));
            assert!(schema.since <= OPSET, "{op_type} is newer than the opset");
            assert!(
                schema.inputs.contains(&node.input.len()),
                "{op_type}: {:?}",
                node.input
            );
            for attribute in &node.attribute {
                let name = attribute.name.as_str();
                assert!(
                    schema.attributes.contains(&name),
                    "{op_type} has no '{name}'"
                );
            }
        }
        OWN_DOMAIN => {
            is_declared(&|k| matches!(k, Kernel::Own(kernel) if kernel.op_type() == op_type));
        }
        CONTRIB_DOMAIN => is_declared(
            &|k| matches!(k, Kernel::Contrib(name) | Kernel::Training(name) if *name == op_type),
        ),
        domain => panic!("'{domain}' has no {op_type}"),
    }
}

/// A model as text: versions, inputs, outputs and nodes, one a line.
pub(crate) fn listing(model: &[u8]) -> String {
    let model = decode(model);
    let graph = model.graph.as_ref().expect("a graph");
    let mut lines = vec![format!("{}, IR version {}", graph.name, model.ir_version)];
    for opset in &model.opset_import {
        lines.push(format!("opset '{}' {}", opset.domain, opset.version));
    }
    for (kind, values) in [("input", &graph.input), ("output", &graph.output)] {
        lines.extend(
            values
                .iter()
                .map(|v| format!("{kind} {}: {}", v.name, ty(v))),
        );
    }
    for tensor in &graph.initializer {
        let (name, dims) = (&tensor.name, &tensor.dims);
        lines.push(format!("initializer {name} {dims:?}{}", few_values(tensor)));
    }
    for node in &graph.node {
        let attributes: Vec<String> = node.attribute.iter().map(attribute).collect();
        lines.push(format!(
            "{} = {}({}){}",
            node.output.join(", "),
            node.op_type,
            node.input.join(", "),
            attributes.concat()
        ));
    }
    lines.join("\n")
}

/// Element type and shape of an input or output; a sequence's are its elements'.
fn ty(value: &ValueInfoProto) -> String {
    let (ty, around) = match &value.r#type.value {
        Some(TypeValue::Sequence(sequence)) => (&sequence.elem_type, ["seq(", ")"]),
        _ => (&value.r#type, ["", ""]),
    };
    let Some(TypeValue::Tensor(tensor)) = &ty.value else {
        panic!("{} is {ty:?}", value.name);
    };
    let dims: Vec<String> = tensor
        .shape
        .iter()
        .flat_map(|shape| &shape.dim)
        .map(|dim| match &dim.value {
            Some(DimensionValue::Size(n)) => n.to_string(),
            Some(DimensionValue::Name(name)) => name.clone(),
            None => panic!("{} has a dimension without size or name", value.name),
        })
        .collect();
    let element = format!("{:?}", tensor.elem_type()).to_uppercase();
    format!("{}{element}[{}]{}", around[0], dims.join(", "), around[1])
}

/// The values of an initializer that has only a few.
fn few_values(tensor: &TensorProto) -> String {
    let raw_data = tensor.raw_data.as_deref().unwrap_or_default();
    let numbers = |width: usize, number: fn(&[u8]) -> String| -> Vec<String> {
        raw_data.chunks_exact(width).map(number).collect()
    };
    let values = match tensor.data_type() {
        DataType::Float => numbers(4, |b| {
            f32::from_le_bytes([b[0], b[1], b[2], b[3]]).to_string()
        }),
        DataType::Int64 => numbers(8, |b| {
            b.iter()
                .rev()
                .fold(0, |n, &b| (n << 8) | i64::from(b))
                .to_string()
        }),
        DataType::Uint8 => numbers(1, |b| b[0].to_string()),
        DataType::Bool => numbers(1, |b| (b[0] != 0).to_string()),
        other => panic!("{} is {other:?}", tensor.name),
    };
    let elements: i64 = tensor.dims.iter().product();
    assert_eq!(
        values.len() as i64,
        elements,
        "{} has other bytes",
        tensor.name
    );
    match values.len() {
        0..=4 => format!(" = {}", values.join(", ")),
        _ => String::new(),
    }
}

fn attribute(attribute: &AttributeProto) -> String {
    let value = match attribute.r#type() {
        AttributeType::Int => attribute.i().to_string(),
        AttributeType::Ints => format!("{:?}", attribute.ints),
        AttributeType::Float => attribute.f().to_string(),
        AttributeType::String => String::from_utf8_lossy(attribute.s()).into_owned(),
        AttributeType::Undefined => panic!("{} has no type", attribute.name),
    };
    format!(" {}={value}", attribute.name)
}
