//! The figures of updates, gathered into one log line every few of them.

use super::evaluate::Evaluation;
use super::log::record::{Record, Train, now};
use super::log::spikes::Spikes;
use super::log::{Log, UpdateScalars};
use crate::data::Batch;
use crate::machine;
use mpnet_graphs::ir::cost::costs;
use mpnet_graphs::ir::{Bindings, Graph, Symbol};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// The figures of one update.
#[derive(Debug, Clone, Copy)]
pub struct UpdateFigures {
    pub step: u64,
    pub average: Evaluation,
    pub lr: f64,
    /// Norm of all gradients before clipping.
    pub gradient_norm: f32,
    /// Tokens that are not padding.
    pub tokens: usize,
    pub predicted: usize,
    /// Time without a batch.
    pub waited: Duration,
}

/// The arithmetic of a training step and how much of it the device can do.
pub struct Peak {
    /// The training graph.
    pub graph: Graph,
    /// Operations a second.
    pub peak: f64,
}

/// Gathers figures between two log lines.
pub struct Figures {
    every: u64,
    total: u64,
    peak: Option<Peak>,
    /// Operations of a micro-batch by rows, length and predicted tokens.
    flops: HashMap<(usize, usize, usize), u64>,
    since: Instant,
    sums: Sums,
    spikes: Spikes,
    skipped: u64,
}

/// Over the updates since the last line.
#[derive(Debug, Default)]
struct Sums {
    updates: f64,
    loss: f64,
    accuracy: f64,
    tokens: usize,
    flops: u64,
    waited: Duration,
}

impl Figures {
    /// A line every `every` of `total` updates.
    pub fn new(every: u64, total: u64, peak: Option<Peak>) -> Figures {
        Figures {
            every: every.max(1),
            total,
            peak,
            flops: HashMap::new(),
            since: Instant::now(),
            sums: Sums::default(),
            spikes: Spikes::default(),
            skipped: 0,
        }
    }

    /// After an update. Loss and accuracy of a line are means over the updates since the line before
    /// that were not skipped.
    pub fn update(&mut self, update: &UpdateFigures, batches: &[Batch], log: &mut Log) {
        let (loss, accuracy) = (update.average.loss, update.average.accuracy);
        self.sums.tokens += update.tokens;
        self.sums.waited += update.waited;
        for batch in batches {
            self.sums.flops += self.cost(batch);
        }
        if update.gradient_norm.is_finite() {
            self.sums.updates += 1.0;
            self.sums.loss += loss;
            self.sums.accuracy += accuracy;
            log.update(&UpdateScalars {
                step: update.step,
                loss,
                accuracy,
                predicted: update.predicted,
                lr: update.lr,
                gnorm: update.gradient_norm.into(),
                tokens: update.tokens,
            });
            if let Some(mean) = self.spikes.spike(loss) {
                log.event(format!(
                    "loss spike at update {}: {loss:.3} bits, {mean:.3} on average before",
                    update.step
                ));
            }
        } else {
            self.skipped += 1;
        }
        let due = update.step.is_multiple_of(self.every) || update.step == self.total;
        if due && self.sums.updates > 0.0 {
            let elapsed = self.since.elapsed().as_secs_f64().max(1e-9);
            let sums = &self.sums;
            log.record(&Record::Train(Train {
                step: update.step,
                time: now(),
                loss: sums.loss / sums.updates,
                acc: sums.accuracy / sums.updates,
                lr: update.lr,
                gnorm: update.gradient_norm.into(),
                tokens_per_second: sums.tokens as f64 / elapsed,
                mfu: self
                    .peak
                    .as_ref()
                    .map(|peak| sums.flops as f64 / elapsed / peak.peak),
                memory: machine::memory(),
                waiting: sums.waited.as_secs_f64() / elapsed,
                skipped: self.skipped,
            }));
            self.restart();
        }
    }

    /// The operations of one micro-batch; none where no peak is known to compare with.
    fn cost(&mut self, batch: &Batch) -> u64 {
        let Some(peak) = &self.peak else { return 0 };
        let sizes = (batch.rows, batch.length, batch.predicted);
        *self.flops.entry(sizes).or_insert_with(|| {
            let bindings = Bindings::new([
                (Symbol::BATCH, sizes.0),
                (Symbol::LENGTH, sizes.1),
                (Symbol::PREDICTED, sizes.2),
            ]);
            costs(&peak.graph, &bindings).total.flops
        })
    }

    /// Evaluations don't count as training time.
    pub fn restart(&mut self) {
        self.since = Instant::now();
        self.sums = Sums::default();
    }
}
