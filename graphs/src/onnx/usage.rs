//! Which operators an emitted graph uses, on which element types.

use super::emitter::onnx_type;
use crate::ir::DType;
use onnx_protobuf::{GraphProto, NodeProto, type_proto};
use std::collections::{BTreeMap, HashMap, HashSet};

/// An operator with the element type by which its kernel is chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperatorUse {
    /// Empty for the ONNX standard.
    pub domain: String,
    pub op_type: String,
    pub dtype: DType,
    /// Type of its first output.
    pub result: DType,
    /// Whether it takes sizes, axes or bounds that are not constants of the model.
    pub open_sizes: bool,
    /// Whether it is a scatter that adds.
    pub adds: bool,
    /// Outputs that are used.
    pub outputs: usize,
}

const ALL: [DType; 7] = [
    DType::F32,
    DType::BF16,
    DType::F16,
    DType::I64,
    DType::U32,
    DType::U8,
    DType::Bool,
];

fn dtype(number: i32) -> Option<DType> {
    ALL.into_iter().find(|&dtype| onnx_type(dtype) == number)
}

/// Every operator of `graph` with the number of its nodes.
///
/// # Errors
/// Naming a node whose type does not follow from its inputs.
pub fn operators(graph: &GraphProto) -> Result<BTreeMap<OperatorUse, usize>, String> {
    let mut types: HashMap<&str, DType> = HashMap::new();
    for input in &graph.input {
        if let Some(type_proto::Value::TensorType(tensor)) = &input.type_.value
            && let Some(dtype) = dtype(tensor.elem_type)
        {
            types.insert(&input.name, dtype);
        }
    }
    for tensor in &graph.initializer {
        if let Some(dtype) = dtype(tensor.data_type) {
            types.insert(&tensor.name, dtype);
        }
    }
    let constants: HashSet<&str> = graph.initializer.iter().map(|t| t.name.as_str()).collect();
    let mut uses = BTreeMap::new();
    for node in &graph.node {
        let (own, results) = node_types(node, &types)
            .ok_or_else(|| format!("the type of '{}' is open", node.name))?;
        for (index, output) in node.output.iter().enumerate() {
            let result = results.get(index).or(results.first());
            types.insert(output, *result.ok_or("a node without results")?);
        }
        let key = OperatorUse {
            domain: node.domain.clone(),
            op_type: node.op_type.clone(),
            dtype: own,
            result: *results.first().ok_or("a node without results")?,
            open_sizes: sizes(node)
                .iter()
                .any(|name| !constants.contains(name.as_str())),
            adds: node
                .attribute
                .iter()
                .any(|a| a.name == "reduction" && a.s == b"add"),
            outputs: node.output.len(),
        };
        *uses.entry(key).or_insert(0) += 1;
    }
    Ok(uses)
}

/// The inputs that say how large the result is, along which axes or from where to where.
fn sizes(node: &NodeProto) -> &[String] {
    let data = match node.op_type.as_str() {
        "Range" => 0,
        "Expand" | "Pad" | "ReduceSum" | "Reshape" | "Slice" | "Split" | "Unsqueeze" => 1,
        _ => node.input.len(),
    };
    node.input.get(data..).unwrap_or_default()
}

/// The type by which the kernel is chosen, and those of the outputs (the first stands for the rest).
fn node_types(node: &NodeProto, types: &HashMap<&str, DType>) -> Option<(DType, Vec<DType>)> {
    let input = |index: usize| types.get(node.input.get(index)?.as_str()).copied();
    // The one operator whose first input may be left out.
    if node.op_type == "ResidualNormGrad" {
        let low = input(2)?;
        let rest = [DType::F32; 3];
        return Some((low, [&[DType::F32, low][..], &rest].concat()));
    }
    let first = input(0)?;
    Some(match node.op_type.as_str() {
        "Cast" => {
            let to = node.attribute.iter().find(|a| a.name == "to")?;
            (first, vec![dtype(i32::try_from(to.i).ok()?)?])
        }
        "Equal" | "Less" | "And" => (first, vec![DType::Bool]),
        "ArgMax" | "Shape" => (first, vec![DType::I64]),
        "DequantizeLinear" => (first, vec![DType::F32]),
        "LayerNormalization" => (first, vec![first, DType::F32, DType::F32]),
        "TwoStreamAttention" | "PackedAttention" | "PackedAttentionGrad" => {
            (first, vec![first, DType::F32])
        }
        "TwoStreamAttentionGrad" => (first, vec![first, first, first, DType::F32]),
        "ResidualNorm" => {
            let low = input(1)?;
            (low, vec![first, low, low, DType::F32, DType::F32])
        }
        "BiasGeluGrad" => (first, vec![first, DType::F32, first]),
        "BiasCrossEntropy" => (first, vec![DType::F32, DType::I64, DType::F32]),
        "BiasCrossEntropyGrad" => (input(1)?, vec![input(1)?, DType::F32]),
        "Where" => (input(1)?, vec![input(1)?]),
        _ => (first, vec![first]),
    })
}
