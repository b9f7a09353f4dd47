//! Batches for the next update, fetched on a thread of their own, so that neither a signal nor a
//! stalled source leaves the run waiting in silence.

use crate::data::{Batch, LoaderState, TrainLoader};
use crate::stop::StopSignal;
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use std::time::{Duration, Instant};

/// How often a waiting run looks for a signal.
const LOOK: Duration = Duration::from_millis(50);
/// Without a batch for this long, the source is reported as stalled; again after twice that, and so
/// on.
const STALLED: Duration = Duration::from_secs(60);

/// The micro-batches of one update, and where the text stands after them.
pub struct Prepared {
    pub batches: Vec<Batch>,
    pub state: LoaderState,
}

/// What there is to say when no batch came for update `step` in `waited`.
pub fn stalled(step: u64, waited: Duration) -> String {
    format!(
        "no batch for update {step} in {:.0} s: the text's source has stalled",
        waited.as_secs_f64()
    )
}

/// Hands out the batches of one update after the other.
pub struct Feeder {
    updates: Receiver<Result<Prepared>>,
    /// Waited for and not handed out yet.
    first: Option<Prepared>,
    stalled: Duration,
}

impl Feeder {
    /// Takes `update_freq` batches an update from `loader`.
    ///
    /// # Errors
    /// Where there is no further thread.
    pub fn new(mut loader: TrainLoader, update_freq: usize) -> Result<Feeder> {
        Feeder::start(
            move || {
                let batches = loader.next_update(update_freq)?;
                let state = loader.state().clone();
                Ok(Prepared { batches, state })
            },
            STALLED,
        )
    }

    fn start(
        mut next: impl FnMut() -> Result<Prepared> + Send + 'static,
        stalled: Duration,
    ) -> Result<Feeder> {
        // The thread itself holds the one update that is ready.
        let (sender, updates) = bounded(0);
        std::thread::Builder::new()
            .name("mpnet-feeder".into())
            .spawn(move || {
                loop {
                    let update = next();
                    let failed = update.is_err();
                    if sender.send(update).is_err() || failed {
                        return;
                    }
                }
            })
            .context("starting the thread that fetches batches")?;
        Ok(Feeder {
            updates,
            first: None,
            stalled,
        })
    }

    /// Waits until the next update's batches are there or a signal comes, so that a text without any is
    /// found before more is done. `report` hears of a stalled source.
    ///
    /// # Errors
    /// Where the text cannot be read.
    pub fn wait(&mut self, stop: &StopSignal, report: impl FnMut(Duration)) -> Result<()> {
        self.first = self.next(stop, report)?;
        Ok(())
    }

    /// The next update's batches; none if a signal came first. `report` hears of a stalled source.
    ///
    /// # Errors
    /// Where the text cannot be read.
    pub fn next(
        &mut self,
        stop: &StopSignal,
        mut report: impl FnMut(Duration),
    ) -> Result<Option<Prepared>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let started = Instant::now();
        let mut patience = self.stalled;
        loop {
            match self.updates.recv_timeout(LOOK) {
                // A source that is waited for gives up at a signal.
                Ok(Err(_)) if stop.received().is_some() => return Ok(None),
                Ok(update) => return update.map(Some),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(anyhow!(
                        "there are no more batches: the text failed earlier"
                    ));
                }
                Err(RecvTimeoutError::Timeout) if stop.received().is_some() => return Ok(None),
                Err(RecvTimeoutError::Timeout) => {
                    if started.elapsed() >= patience {
                        report(started.elapsed());
                        patience *= 2;
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepared() -> Prepared {
        Prepared {
            batches: Vec::new(),
            state: LoaderState::new(1),
        }
    }

    #[test]
    fn a_stalled_source_is_reported_and_then_goes_on() {
        let next = || {
            std::thread::sleep(Duration::from_millis(400));
            Ok(prepared())
        };
        let mut feeder = Feeder::start(next, Duration::from_millis(60)).unwrap();
        let mut reports = 0;
        let found = feeder.next(&StopSignal::silent(), |_| reports += 1);
        assert!(found.unwrap().is_some());
        assert!((1..=3).contains(&reports), "{reports}");
    }

    #[test]
    fn an_error_comes_through_and_then_there_is_nothing() {
        let mut feeder = Feeder::start(|| Err(anyhow!("the disk is gone")), STALLED).unwrap();
        let stop = StopSignal::silent();
        let mut said = || feeder.next(&stop, |_| ()).err().unwrap().to_string();
        assert!(said().contains("the disk is gone"));
        assert!(said().contains("no more batches"));
    }
}
