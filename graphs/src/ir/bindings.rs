//! Concrete sizes for the symbols of a graph.

use super::dim::Symbol;

/// One size for each symbol; the interpreter and the cost figures evaluate dimensions with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bindings {
    /// B, rows of the batch.
    pub batch: usize,
    /// L, tokens of a row.
    pub length: usize,
    /// P, predicted tokens of a row.
    pub predicted: usize,
}

impl Bindings {
    /// The size of `symbol`.
    pub fn get(&self, symbol: Symbol) -> usize {
        match symbol {
            Symbol::Batch => self.batch,
            Symbol::Length => self.length,
            Symbol::Predicted => self.predicted,
        }
    }
}
