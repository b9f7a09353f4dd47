//! An MPNet encoder as a Burn module: `Model::forward(input_ids, attention_mask)`, both `[rows, length]`.
//!
//! `Model::default()` reads the weights where the build left them; a program that is shipped takes
//! `model.bpk` from there along and calls `Model::from_file`.

include!(concat!(env!("OUT_DIR"), "/model/model.rs"));
