//! Loss and accuracy over an evaluation set.

use super::inputs::{batch_inputs, borrowed};
use crate::data::EvaluationSet;
use anyhow::{Context, Result};
use mpnet_graphs::lower::ort_training::{CORRECT, LOSS_SUM};
use mpnet_runtime::engine::{Engine, Tensor};

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
    engine: &mut dyn Engine,
    set: &EvaluationSet,
    mut done: impl FnMut(usize) -> bool,
) -> Result<Option<Evaluation>> {
    let mut totals = Totals::default();
    for (index, batch) in set.batches().enumerate() {
        let batch = batch?;
        let outputs = engine.eval_step(&borrowed(&batch_inputs(&batch)))?;
        totals.add(&outputs, batch.predicted_tokens)?;
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
    predicted: usize,
}

impl Totals {
    /// Adds the loss and the correct predictions among a step's outputs.
    ///
    /// # Errors
    /// Where they are not there.
    pub fn add(&mut self, outputs: &[Tensor], predicted_tokens: usize) -> Result<()> {
        let scalar = |name: &str| {
            outputs
                .iter()
                .find(|t| t.name == name)
                .and_then(Tensor::scalar)
                .with_context(|| format!("the graph has no scalar output '{name}'"))
        };
        self.loss += f64::from(scalar(LOSS_SUM)?);
        self.correct += f64::from(scalar(CORRECT)?);
        self.predicted += predicted_tokens;
        Ok(())
    }

    /// Per predicted token, the loss in bits.
    pub fn average(&self) -> Evaluation {
        let predicted = self.predicted.max(1) as f64;
        Evaluation {
            loss: self.loss / predicted / std::f64::consts::LN_2,
            accuracy: self.correct / predicted,
        }
    }
}
