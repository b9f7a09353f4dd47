//! From the IR to ONNX protobuf.

#[cfg(test)]
pub(crate) mod conformance;
pub mod emitter;
pub mod export;
pub mod kernel;
pub mod model;
#[cfg(test)]
mod presence;
pub(crate) mod proto;
pub mod usage;
mod write;
