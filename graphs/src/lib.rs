//! MPNet's training graph: defined once, differentiated, optimised and lowered to ONNX.
//!
//! This crate turns a [`model::task::Task`] into ONNX models. It never links ONNX Runtime and knows nothing
//! of a run's files. Its floors, its invariants and where to add what: `graphs/ARCHITECTURE.md`.
#![forbid(unsafe_code)]

pub mod autodiff;
pub mod ir;
pub mod lower;
pub mod model;
pub mod onnx;
pub mod ops;
pub mod optimizer;
pub mod passes;
