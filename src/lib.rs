//! Pretrain MPNet with ONNX Runtime: data path, training loop, conversion and command line.
#![deny(unsafe_code)]

pub mod arrays;
pub mod checkpoint;
pub mod cli;
pub mod convert;
pub mod data;
pub mod export;
pub mod initialize;
pub mod launch;
pub mod machine;
pub mod output;
pub mod report;
pub mod scale;
pub mod staging;
pub mod stop;
pub mod train;
pub mod verify;
