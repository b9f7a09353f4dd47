//! Where a run stands.

use super::feed::DataState;
use serde::Serialize;
use std::sync::Arc;

/// By what validations are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BestBy {
    /// The loss, which is to be low.
    Loss,
    /// The share of the rows that are right, which is to be high, as the next.
    Accuracy,
    /// What else is measured, by its name.
    Figure(&'static str),
}

/// A validation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Best {
    /// In the units of the task.
    pub loss: f64,
    /// What validations are compared by, where that is not the loss.
    pub figure: Option<f64>,
}

impl Best {
    /// Whether it is better than the one `before`: by the figure, or where there is none in both or it is the same, by the
    /// loss.
    pub fn is_better(&self, before: &Best) -> bool {
        match (self.figure, before.figure) {
            (Some(now), Some(before)) if now != before => now > before,
            (Some(_) | None, Some(_) | None) => self.loss < before.loss,
        }
    }
}

/// Where a run stands beside its parameters.
#[derive(Debug, Clone)]
pub struct Position {
    /// Updates made.
    pub step: u64,
    /// The best validation so far.
    pub best: Option<Best>,
    /// The last step whose validation loss was taken.
    pub validated: Option<u64>,
    pub data: Arc<dyn DataState>,
}
