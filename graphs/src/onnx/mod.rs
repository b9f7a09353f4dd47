//! From the IR to ONNX protobuf.

pub mod emitter;
pub mod model;
pub mod usage;
