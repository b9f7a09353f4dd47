//! The figures of updates, gathered into one log line every few of them.

use super::evaluate::Evaluation;
use super::feed::DataState;
use super::log::record::{LossUnit, RankFigures, Record, Share, Train, now};
use super::log::spikes::Spikes;
use super::log::{Log, UpdateScalars};
use super::ranks::Said;
use crate::machine;
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
    /// What the loss is a mean over.
    pub items: usize,
    /// Items that there would be if each row had its own share.
    pub own_shares: usize,
    /// Floating-point operations, where they are counted.
    pub flops: u64,
    /// Time without a batch.
    pub waited: Duration,
    /// Time in collectives, waiting for other ranks included.
    pub collectives: Duration,
}

/// Gathers figures between two log lines.
pub struct Figures {
    every: u64,
    total: u64,
    unit: LossUnit,
    /// Floating-point operations a second that the device can do.
    peak: Option<f64>,
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
    collectives: Duration,
    items: usize,
    own_shares: usize,
    /// Seconds of each rank on its own part of updates.
    busy: Vec<f64>,
}

impl Figures {
    /// A line every `every` of `total` updates, whose losses are in `unit`; `peak` floating-point operations a second are what the device
    /// can do, where that is known.
    pub fn new(every: u64, total: u64, unit: LossUnit, peak: Option<f64>) -> Figures {
        Figures {
            every: every.max(1),
            total,
            unit,
            peak,
            since: Instant::now(),
            sums: Sums::default(),
            spikes: Spikes::default(),
            skipped: 0,
        }
    }

    /// After an update. Loss and accuracy of a line are means over the updates since the line before
    /// that were not skipped.
    ///
    /// `ranks` is what each rank said of it, `state` where the text stands after it.
    pub fn update(
        &mut self,
        update: &UpdateFigures,
        ranks: &[Said],
        state: &dyn DataState,
        log: &mut Log,
    ) {
        let (loss, accuracy) = (update.average.loss, update.average.accuracy);
        self.sums.tokens += update.tokens;
        self.sums.waited += update.waited;
        self.sums.collectives += update.collectives;
        self.sums.busy.resize(ranks.len(), 0.0);
        for (sum, said) in self.sums.busy.iter_mut().zip(ranks) {
            *sum += said.busy.as_secs_f64();
        }
        self.sums.flops += update.flops;
        self.sums.items += update.items;
        self.sums.own_shares += update.own_shares;
        if update.gradient_norm.is_finite() {
            self.sums.updates += 1.0;
            self.sums.loss += loss;
            self.sums.accuracy += accuracy;
            log.update(&UpdateScalars {
                step: update.step,
                loss,
                accuracy,
                items: update.items,
                lr: update.lr,
                gnorm: update.gradient_norm.into(),
                tokens: update.tokens,
            });
            if let Some(mean) = self.spikes.spike(loss) {
                log.event(format!(
                    "loss spike at update {}: {loss:.3} {}, {mean:.3} on average before",
                    update.step,
                    self.unit.name()
                ));
            }
        } else {
            self.skipped += 1;
        }
        let due = update.step.is_multiple_of(self.every) || update.step == self.total;
        if due && self.sums.updates > 0.0 {
            let elapsed = self.since.elapsed().as_secs_f64().max(1e-9);
            let sums = &self.sums;
            let tokens_per_second = sums.tokens as f64 / elapsed;
            let collectives = sums.collectives.as_secs_f64() / elapsed;
            log.record(&Record::Train(Train {
                step: update.step,
                time: now(),
                loss: sums.loss / sums.updates,
                acc: sums.accuracy / sums.updates,
                lr: update.lr,
                gnorm: update.gradient_norm.into(),
                tokens_per_second,
                mfu: self.peak.map(|peak| {
                    sums.flops as f64 / elapsed / (peak * sums.busy.len().max(1) as f64)
                }),
                memory: machine::memory(),
                waiting: sums.waited.as_secs_f64() / elapsed,
                ranks: RankFigures::of(&sums.busy, tokens_per_second, collectives),
                skipped: self.skipped,
                predicted_share: (sums.own_shares > 0)
                    .then(|| sums.items as f64 / sums.own_shares as f64),
                mixture: Share::of(&state.read()),
                passed: state.passed(),
            }));
            self.restart();
        }
    }

    /// Whether there is a peak to compare the operations of updates with.
    pub fn counts_operations(&self) -> bool {
        self.peak.is_some()
    }

    /// Evaluations don't count as training time.
    pub fn restart(&mut self) {
        self.since = Instant::now();
        self.sums = Sums::default();
    }
}
