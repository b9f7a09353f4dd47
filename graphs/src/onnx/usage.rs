//! Which operators an emitted graph uses, on which element types.

use super::proto::NodeProto;
use crate::ir::DType;

/// An operator with the element type by which its kernel is chosen.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OperatorUse {
    /// Empty for the ONNX standard.
    pub domain: String,
    pub op_type: String,
    pub dtype: DType,
    /// Type of its first output.
    pub result: DType,
    /// Whether it takes sizes that are not constants of the model.
    pub open_sizes: bool,
    /// Whether it is a scatter that adds.
    pub adds: bool,
    /// Outputs that are used.
    pub outputs: usize,
}

impl OperatorUse {
    pub(super) fn new(
        node: &NodeProto,
        dtype: DType,
        result: DType,
        open_sizes: bool,
    ) -> OperatorUse {
        let mut attributes = node.attribute.iter();
        OperatorUse {
            domain: node.domain.clone(),
            op_type: node.op_type.clone(),
            dtype,
            result,
            open_sizes,
            adds: attributes.any(|a| a.name == "reduction" && a.s.as_deref() == Some(b"add")),
            outputs: node.output.len(),
        }
    }
}
