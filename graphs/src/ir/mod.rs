//! The intermediate representation: an SSA graph of typed values with symbolic shapes.

pub mod cost;
mod graph;
mod interpret;
pub mod memory;
mod operation;
mod print;
#[cfg(test)]
pub(crate) mod testing;
mod types;
mod verify;

pub use cost::{Cost, Operands};
pub use graph::{Graph, GraphError, Node, NodeId, Value, ValueId, ValueKind};
pub use interpret::{Array, interpret};
pub use mpnet_plan::{Bindings, Dim, Symbol};
pub use operation::{Operation, Storage};
pub use types::{DType, Type};
pub use verify::verify;

pub(crate) use graph::infer;
