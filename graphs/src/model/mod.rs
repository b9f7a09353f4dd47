//! MPNet, written once: configuration, parameters and the model functions.

pub mod config;
pub mod parameters;
