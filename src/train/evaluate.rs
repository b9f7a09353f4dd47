//! Loss and accuracy over an evaluation set.

use super::engine::Running;
use super::micro_batch::{MicroBatch, Outputs};
use crate::data::EvaluationSet;
use anyhow::Result;
use mpnet_graphs::model::task::{CORRECT, LOSS_SUM};

/// Averages over predicted tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// Bits per predicted token.
    pub loss: f64,
    /// Share of the predicted tokens that were right.
    pub accuracy: f64,
}

/// Evaluates every batch of `set`; `done` is called after each with the number of batches so far,
/// and ends the evaluation early by returning false.
///
/// # Errors
/// Where the engine fails.
pub fn evaluate(
    running: &mut Running,
    set: &EvaluationSet,
    mut done: impl FnMut(usize) -> bool,
) -> Result<Option<Evaluation>> {
    let mut totals = Totals::default();
    for (index, batch) in set.batches().enumerate() {
        let batch = batch?;
        let outputs = running.eval_step(&batch)?;
        totals.add(&outputs, batch.items())?;
        if !done(index + 1) {
            return Ok(None);
        }
    }
    Ok(Some(totals.average()))
}

/// Sums over batches.
#[derive(Debug, Clone, Copy, Default)]
pub struct Totals {
    loss: f64,
    correct: f64,
    items: usize,
}

impl Totals {
    /// Adds the loss and the correct predictions of a step over so many items.
    ///
    /// # Errors
    /// Where they are not there.
    pub fn add(&mut self, outputs: &Outputs, items: usize) -> Result<()> {
        self.loss += outputs.figure(LOSS_SUM)?;
        self.correct += outputs.figure(CORRECT)?;
        self.items += items;
        Ok(())
    }

    /// Averages over the items, the loss in bits.
    pub fn average(&self) -> Evaluation {
        let items = self.items.max(1) as f64;
        Evaluation {
            loss: self.loss / items / std::f64::consts::LN_2,
            accuracy: self.correct / items,
        }
    }
}
