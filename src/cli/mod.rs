//! Command line of the three binaries.

pub mod doctor;
pub mod runtime;
pub mod tokenizer;
