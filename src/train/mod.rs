//! The training loop and what it needs around it.

mod bad_batch;
pub mod changes;
pub mod config;
mod dry_run;
pub mod engine;
pub mod evaluate;
pub mod execution;
pub mod feeder;
pub mod figures;
pub mod flags;
mod foreign;
mod group;
pub mod log;
pub mod micro_batch;
pub mod placement;
mod position;
mod prepare;
pub mod ranks;
mod resume;
pub mod run;
pub mod saver;
pub mod schedule;
pub mod session;
mod text;
pub mod trainer;
