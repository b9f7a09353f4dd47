//! Command line of the three binaries.

pub mod tokenizer;
