//! What a training step takes for its dropout.

use crate::{Bindings, Dim, Unbound};

/// A dropout mask that a step takes as an input: bytes, 1 where an element is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct DropoutSite {
    /// Name of the model's input.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<Dim>,
    /// Probability of being dropped.
    pub ratio: f32,
}

/// A factor of the masks that a device computes itself: an input of odd u32.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// Name of the model's input.
    pub name: String,
    /// Its dimensions.
    pub shape: Vec<Dim>,
}

/// The step's inputs for dropout.
#[derive(Debug, Clone, PartialEq)]
pub enum Randomness {
    /// A mask of bytes for each site.
    Masks(Vec<DropoutSite>),
    /// Factors from which the device computes the masks.
    Factors(Vec<Factor>),
}

/// The sizes of `dims` in a batch; one below 0, which no valid batch gives, is 0.
///
/// # Errors
/// Naming a size that the batch does not give.
pub fn shape(dims: &[Dim], sizes: &Bindings) -> Result<Vec<usize>, Unbound> {
    let size = |dim: &Dim| Ok(usize::try_from(dim.eval(sizes)?).unwrap_or(0));
    dims.iter().map(size).collect()
}
