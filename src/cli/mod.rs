//! Command line of the three binaries.

pub mod compile;
pub mod convert;
pub mod dataset;
pub mod doctor;
pub mod eval;
pub mod exit;
pub mod export;
pub mod graph;
pub mod hardware;
pub mod import;
pub mod model_file;
pub mod presets;
pub mod pretrain;
pub mod report;
pub mod runtime;
pub mod spelling;
pub mod tokenizer;
pub mod verify;
