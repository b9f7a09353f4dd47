//! Batches for the next update, fetched on a thread of their own, so that neither a signal nor a
//! stalled source leaves the run waiting in silence.

use super::feed::{AnyBatch, DataState, Loader};
use crate::launch::Share;
use crate::stop::StopSignal;
use anyhow::{Context, Result, anyhow};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use mpnet_runtime::engine::TensorData;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often a waiting run looks for a signal.
const LOOK: Duration = Duration::from_millis(50);
/// Without a batch for this long, the source is reported as stalled; again after twice that, and so
/// on.
const STALLED: Duration = Duration::from_secs(60);

/// This rank's micro-batches of one update, and where the text stands after those of all ranks.
pub struct Prepared {
    /// Each with its number among the update's micro-batches, from 0.
    pub batches: Vec<(usize, AnyBatch)>,
    pub counts: Counts,
    pub state: Arc<dyn DataState>,
}

/// What one update has in all, whichever rank trains on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub micro_batches: usize,
    /// Tokens that are not padding.
    pub tokens: usize,
    /// What the loss is a mean over: predicted tokens, for instance.
    pub items: usize,
    /// Items that there would be if each row had its own share.
    pub own_shares: usize,
    /// SHA-256 of all inputs, where somebody asks for it.
    pub digest: Option<[u8; 32]>,
}

impl Prepared {
    /// Of all of an update's batches, the share of one rank: every batch whose number leaves the rank's when it is
    /// divided by the number of ranks. The digest of all is counted where it is `hashed`.
    pub fn new(
        batches: Vec<AnyBatch>,
        state: Arc<dyn DataState>,
        share: Share,
        hashed: bool,
    ) -> Prepared {
        let sum = |of: fn(&AnyBatch) -> usize| batches.iter().map(of).sum();
        let counts = Counts {
            micro_batches: batches.len(),
            tokens: sum(|batch| batch.tokens()),
            items: sum(|batch| batch.items()),
            own_shares: sum(|batch| batch.own_shares()),
            digest: hashed.then(|| digest(&batches)),
        };
        let numbered = batches.into_iter().enumerate();
        Prepared {
            batches: numbered.filter(|(index, _)| share.has(*index)).collect(),
            counts,
            state,
        }
    }
}

/// SHA-256 of the inputs of `batches`, which are all indices.
fn digest(batches: &[AnyBatch]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for tensor in batches.iter().flat_map(|batch| batch.inputs()) {
        if let TensorData::I64(values) = &tensor.data {
            for value in values {
                hash.update(value.to_le_bytes());
            }
        }
    }
    hash.finalize().into()
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
    /// Takes `micro_batches` an update from `loader`, and hands out those of `share`.
    ///
    /// # Errors
    /// Where there is no further thread.
    pub fn new(
        mut loader: impl Loader + 'static,
        micro_batches: usize,
        share: Share,
    ) -> Result<Feeder> {
        // Ranks compare the first one's, and the log shows all to who looks for them.
        let mut first = share.world > 1;
        Feeder::start(
            move || {
                let hashed = std::mem::take(&mut first) || tracing::enabled!(tracing::Level::DEBUG);
                let batches = loader.next_update(micro_batches)?;
                let state = loader.state();
                Ok(Prepared::new(batches, state, share, hashed))
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

    /// The next update, where it was waited for.
    pub fn first(&self) -> Option<&Prepared> {
        self.first.as_ref()
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
    use crate::data::{Batch, LoaderState};

    fn prepared() -> Prepared {
        Prepared::new(Vec::new(), Arc::new(LoaderState::new(1)), Share::ALL, false)
    }

    #[test]
    fn ranks_share_the_batches_and_know_of_all() {
        let batch = |rows: usize| Batch {
            rows,
            length: 3,
            predicted: 1,
            copies: 0,
            input_ids: vec![rows as i64; 3 * rows],
            positions: Vec::new(),
            targets: vec![7; rows],
            attention_mask: Vec::new(),
            tokens: 3 * rows,
            predicted_tokens: rows,
            own_shares: rows,
        };
        let batches = |count: usize| -> Vec<AnyBatch> {
            let all = (1..=count).map(|rows| Box::new(batch(rows)) as AnyBatch);
            all.collect()
        };
        let state: Arc<dyn DataState> = Arc::new(LoaderState::new(1));
        let rows = |prepared: &Prepared| -> Vec<(usize, usize)> {
            let each = prepared.batches.iter();
            each.map(|(index, batch)| (*index, batch.items())).collect()
        };
        let whole = Prepared::new(batches(6), state.clone(), Share::ALL, true);
        let (counts, mut taken) = (whole.counts, Vec::new());
        assert_eq!((counts.micro_batches, counts.tokens), (6, 63));
        assert_eq!((counts.items, counts.own_shares), (21, 21));
        for rank in 0..3 {
            let share = Share { rank, world: 3 };
            let part = Prepared::new(batches(6), state.clone(), share, true);
            assert_eq!(part.counts, counts);
            assert_eq!(part.batches.len(), 2);
            taken.extend(rows(&part));
        }
        taken.sort_unstable();
        assert_eq!(taken, rows(&whole));
        let other = Prepared::new(batches(5), state, Share::ALL, true);
        assert_ne!(other.counts.digest, counts.digest);
    }

    #[test]
    fn a_stalled_source_is_reported_and_then_goes_on() {
        let next = || {
            std::thread::sleep(Duration::from_millis(400));
            Ok(prepared())
        };
        let mut feeder = Feeder::start(next, Duration::from_millis(60)).unwrap();
        let mut reports = 0;
        let found = feeder.next(&StopSignal::unheard(), |_| reports += 1);
        assert!(found.unwrap().is_some());
        assert!((1..=3).contains(&reports), "{reports}");
    }

    #[test]
    fn an_error_comes_through_and_then_there_is_nothing() {
        let mut feeder = Feeder::start(|| Err(anyhow!("the disk is gone")), STALLED).unwrap();
        let stop = StopSignal::unheard();
        let mut said = || feeder.next(&stop, |_| ()).err().unwrap().to_string();
        assert!(said().contains("the disk is gone"));
        assert!(said().contains("no more batches"));
    }
}
