//! What the graph itself has to know of the operators in it.

use super::cost::{Cost, Operands};
use super::interpret::Array;
use super::types::Type;
use mpnet_plan::Bindings;
use std::fmt;

/// Where a node's results lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In memory of their own.
    Own,
    /// In that of its first input, of which they are another view.
    OfInput,
    /// In the file: they are constants.
    File,
}

/// An operator of a graph.
pub trait Operation: Clone + PartialEq + fmt::Debug {
    /// Its name in printed graphs.
    fn name(&self) -> &'static str;

    /// Its attributes in printed graphs, with a leading space.
    fn attributes(&self) -> String;

    /// Output types for these input types.
    ///
    /// # Errors
    /// Why there are none.
    fn infer(&self, inputs: &[&Type]) -> Result<Vec<Type>, String>;

    /// Its outputs, in f64.
    ///
    /// # Errors
    /// Where it refuses the values.
    fn evaluate(&self, sizes: &Bindings, inputs: &[&Array]) -> Result<Vec<Array>, String>;

    /// What it costs to run.
    fn cost(&self, node: &Operands) -> Cost;

    /// Where its results lie.
    fn storage(&self) -> Storage;

    /// Whether a result that nobody reads is not computed: its kernel takes the node without it.
    fn optional_outputs(&self) -> bool;
}
