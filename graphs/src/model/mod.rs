//! MPNet, written once: configuration, parameters and the model functions.
//!
//! The functions take and return values and know nothing of training. Rows of a batch are the last
//! but one dimension: activations are `[R, B, D]`, so that the content rows are a contiguous
//! prefix and every head is a strided view that a matrix product reads without a copy.

mod activation;
mod attention;
mod builder;
pub mod classification;
pub mod config;
mod embeddings;
pub mod encoder;
pub mod gathering;
#[cfg(test)]
mod gradients;
mod layer;
mod lm_head;
mod loss;
mod objective;
pub mod parameters;
pub mod pooling;
pub mod pretraining;
pub mod ranking;
mod relative_bias;
pub mod scored;
pub mod sentences;
mod single_stream;
mod streams;
pub mod task;
#[cfg(test)]
pub(crate) mod testing;
pub mod triplets;

pub use builder::AttentionForm;
pub use objective::Objective;
pub use relative_bias::relative_position_bucket;
pub use task::Task;
