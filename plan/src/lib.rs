//! What the graph compiler and the runtime agree on.
//!
//! `mpnet-graphs` writes models for a [`Provider`] in a [`Precision`] and describes them in a [`Plan`];
//! `mpnet-runtime` executes it. Whatever both have to know stands here, once.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod dropout;
mod kernel;
pub mod names;
mod optimizer;
mod plan;
mod precision;
mod provider;
mod size;
mod tensor;

pub use dropout::{DropoutSite, Factor, Randomness, shape};
pub use kernel::{KernelId, OWN_DOMAIN, UnknownKernel};
pub use optimizer::AdamW;
pub use plan::{Link, Models, Plan, Segment, Slot};
pub use precision::{Precision, UnknownPrecision};
pub use provider::{
    Bf16Form, Coverage, OperatorTypes, Plugin, Provider, ProviderInfo, UnknownProvider,
};
pub use size::{Bindings, Dim, SizeInput, Symbol, Unbound};
pub use tensor::{NamedArray, Tensor, TensorData};
