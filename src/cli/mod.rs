//! Command line of the three binaries.

pub mod common;
pub mod compile;
pub mod convert;
pub mod dataset;
pub mod doctor;
mod doctor_ranks;
pub mod eval;
pub mod exit;
pub mod export;
pub mod flags_page;
pub mod graph;
pub mod hardware;
pub mod import;
pub mod manual;
pub mod model_file;
pub mod optimizer;
pub mod plan;
pub mod presets;
pub mod pretrain;
pub mod report;
pub mod runtime;
pub mod spelling;
pub mod tokenizer;
pub mod values;
pub mod verbs;
pub mod verify;
