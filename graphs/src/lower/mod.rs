//! Targets: from a model's graph to the files that one way of running it takes.

mod differentiate;
pub mod evaluation;
pub mod export;
pub mod ort_training;
pub mod portable;
mod randomness;
