//! Loss and accuracy over an evaluation set.

use super::engine::Running;
use super::feed::HeldOut;
use super::log::record::LossUnit;
use super::micro_batch::Outputs;
use super::ranks::{Ranks, Said};
use crate::stop::StopSignal;
use anyhow::Result;
use mpnet_graphs::model::task::{CORRECT, LOSS_SUM};

/// Averages over items: predicted tokens or rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Evaluation {
    /// In the unit that was asked for.
    pub loss: f64,
    /// Share of the items that were right.
    pub accuracy: f64,
}

/// Evaluates every batch of `set`, of which each rank takes its share. None on all ranks where a signal asked one of
/// them to stop before its share was done.
///
/// # Errors
/// Where the engine fails, or another rank is gone.
pub fn evaluate(
    running: &mut Running,
    set: &dyn HeldOut,
    ranks: &Ranks,
    stop: &StopSignal,
    unit: LossUnit,
) -> Result<Option<Evaluation>> {
    let mut totals = Totals::new(set.batch_count());
    let mut said = Said::default();
    for (index, batch) in set.batches(ranks.share()) {
        let batch = batch?;
        let outputs = running.eval_step(batch.as_ref())?;
        totals.add(index, &outputs, batch.items())?;
        if let Some(signal) = stop.received() {
            said.signal = signal;
            said.empty = true;
            break;
        }
    }
    let heard = ranks.meet(&said, totals.slots(), "evaluating")?;
    Ok((!heard.is_empty()).then(|| Totals::of(heard.slots).average(unit)))
}

/// What each of several batches gave, in slots of its own; those of other ranks are zero.
#[derive(Debug, Clone, PartialEq)]
pub struct Totals(Vec<f64>);

/// Loss, correct predictions and items of a batch.
const SLOTS: usize = 3;

impl Totals {
    /// Nothing yet, of so many batches.
    pub fn new(batches: usize) -> Totals {
        Totals(vec![0.0; SLOTS * batches])
    }

    /// What [`Totals::slots`] gave, summed over all ranks.
    pub fn of(slots: Vec<f64>) -> Totals {
        Totals(slots)
    }

    /// One number for each figure of each batch.
    pub fn slots(&self) -> &[f64] {
        &self.0
    }

    /// Takes the loss and the correct predictions of batch number `index`, which has so many items. Returns the loss.
    ///
    /// # Errors
    /// Where they are not there.
    pub fn add(&mut self, index: usize, outputs: &Outputs, items: usize) -> Result<f64> {
        let loss = outputs.figure(LOSS_SUM)?;
        let figures = [loss, outputs.figure(CORRECT)?, items as f64];
        if let Some(slots) = self.0.chunks_mut(SLOTS).nth(index) {
            slots.copy_from_slice(&figures);
        }
        Ok(loss)
    }

    /// Averages over the items, the loss in this unit.
    pub fn average(&self, unit: LossUnit) -> Evaluation {
        let sum = |which: usize| -> f64 { self.0.iter().skip(which).step_by(SLOTS).sum() };
        let items = sum(2).max(1.0);
        Evaluation {
            loss: unit.of_nats(sum(0) / items),
            accuracy: sum(1) / items,
        }
    }
}
