//! From the IR to ONNX protobuf.

#[cfg(test)]
pub(crate) mod conformance;
pub mod emitter;
pub mod export;
pub mod kernel;
pub mod model;
pub mod usage;
