//! A model as bytes, its tensors one after another, so that none is in memory twice.

use super::proto::{ModelProto, TensorProto};
use crate::ir::GraphError;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use std::io::Write;

/// `GraphProto.initializer` in `onnx.proto`.
const INITIALIZER: u32 = 5;
/// `ModelProto.graph` in `onnx.proto`.
const GRAPH: u32 = 7;
/// What protobuf can hold in one message.
const LARGEST: usize = i32::MAX as usize;

/// Writes `model` to `out`.
///
/// # Errors
/// Where it has 2 GiB or more, or cannot be written.
pub(super) fn write(mut model: ModelProto, out: &mut dyn Write) -> Result<(), GraphError> {
    let failed = |reason: String| GraphError::Emit {
        op: "model",
        reason,
    };
    let mut graph = model.graph.take().unwrap_or_default();
    let tensors = std::mem::take(&mut graph.initializer);
    let in_graph: usize = tensors.iter().map(field_len).sum();
    let length = graph.encoded_len() + in_graph;
    if length > LARGEST {
        return Err(failed(format!(
            "{length} bytes are more than a protobuf message holds: write the tensors to a file of their own"
        )));
    }
    let mut bytes = model.encode_to_vec();
    encode_key(GRAPH, WireType::LengthDelimited, &mut bytes);
    encode_varint(length as u64, &mut bytes);
    graph.encode_raw(&mut bytes);
    let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(|e| failed(e.to_string()));
    put(&bytes)?;
    for tensor in tensors {
        let mut bytes = Vec::with_capacity(field_len(&tensor));
        encode_key(INITIALIZER, WireType::LengthDelimited, &mut bytes);
        encode_varint(tensor.encoded_len() as u64, &mut bytes);
        tensor.encode_raw(&mut bytes);
        drop(tensor);
        put(&bytes)?;
    }
    Ok(())
}

/// Bytes of a tensor as a field of the graph.
fn field_len(tensor: &TensorProto) -> usize {
    let len = tensor.encoded_len();
    key_len(INITIALIZER) + encoded_len_varint(len as u64) + len
}
