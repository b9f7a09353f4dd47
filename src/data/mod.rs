//! From text to training batches: sources, the HuggingFace Hub, tokenizer, collator, loader and dropout masks.
//!
//! Everything random is keyed by (seed, what it is for, where in the data), never by threads or time.

pub mod collator;
pub mod dropout;
pub mod error;
pub mod evaluation;
#[cfg(test)]
pub(crate) mod fixture;
pub mod hub;
pub mod loader;
pub mod masking;
pub mod pairs;
pub mod rng;
pub mod source;
pub mod synthetic;
pub mod tokenizer;

pub use collator::{Batch, Collator};
pub use dropout::{MaskKey, fill_keep_mask};
pub use error::{DataError, Result};
pub use evaluation::EvaluationSet;
pub use loader::{BreakMode, LoaderConfig, LoaderState, Part, Read, TrainLoader, batch_problem};
pub use masking::Masking;
pub use source::Sources;
pub use tokenizer::Tokenizer;
