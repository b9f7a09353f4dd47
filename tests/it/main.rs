//! End-to-end tests through the three binaries, on the real ONNX Runtime. All are modules of this one
//! binary, so that they are linked once and run beside each other: a new file of tests is a new line here.
//! `cargo test --test it survival::` runs one module.

mod classification;
mod common;
mod convert;
mod embeddings;
mod export;
mod full_disk;
mod golden;
mod golden_tasks;
mod hostile_pickles;
mod hub;
mod import;
mod machine;
mod models;
mod modes;
mod plugins;
mod pretrain;
mod ranks;
mod session;
mod survival;
mod text;
mod tools;
mod wrong_input;
