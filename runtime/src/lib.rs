//! Finds, fetches and loads builds of ONNX Runtime, and runs training artifacts on them.
//!
//! This crate knows no MPNet: artifacts reach it as files and named tensors.
#![warn(missing_docs)]

pub mod checkpoint_file;
pub mod collective;
#[cfg(windows)]
pub mod console;
pub mod device;
pub mod digest;
pub mod doctor;
pub mod engine;
mod kernels;
pub mod lfs;
pub mod library;
pub mod plugin;
pub mod processor;
pub mod provider;
pub mod scratch;
#[cfg(unix)]
pub mod signals;
