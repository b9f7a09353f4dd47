//! The training loop and what it needs around it.

pub mod config;
pub mod engine;
pub mod evaluate;
pub mod execution;
mod foreign;
pub mod initialize;
pub mod inputs;
pub mod progress;
pub mod run;
pub mod schedule;
pub mod session;
mod sized;
pub mod stop;
pub mod trainer;
