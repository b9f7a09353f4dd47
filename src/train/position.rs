//! Where a run stands.

use crate::data::LoaderState;

/// Where a run stands beside its parameters.
#[derive(Debug, Clone)]
pub struct Position {
    /// Updates made.
    pub step: u64,
    /// Lowest validation loss so far, in bits per predicted token.
    pub best_loss: Option<f64>,
    /// The last step whose validation loss was taken.
    pub validated: Option<u64>,
    pub data: LoaderState,
}

impl Position {
    /// That of a run that begins, whose data stands at `data`.
    pub fn start(data: LoaderState) -> Position {
        Position {
            step: 0,
            best_loss: None,
            validated: None,
            data,
        }
    }
}
