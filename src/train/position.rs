//! Where a run stands.

use super::feed::DataState;
use std::sync::Arc;

/// Where a run stands beside its parameters.
#[derive(Debug, Clone)]
pub struct Position {
    /// Updates made.
    pub step: u64,
    /// Lowest validation loss so far, in the units of the task.
    pub best_loss: Option<f64>,
    /// The last step whose validation loss was taken.
    pub validated: Option<u64>,
    pub data: Arc<dyn DataState>,
}
