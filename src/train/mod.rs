//! The training loop and what it needs around it.

pub mod engine;
pub mod initialize;
pub mod inputs;
pub mod schedule;
