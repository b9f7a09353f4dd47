//! Checkpoints written on a thread of their own while training goes on, and again where the disk
//! refuses them.

use crate::checkpoint::{self, Checkpoint, Pointer};
use crate::machine::available_memory;
use crate::stop::StopSignal;
use anyhow::{Context, Result, anyhow};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The first wait between two attempts, and every one after a signal.
const SHORTEST_PAUSE: Duration = Duration::from_millis(500);
/// The longest wait between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Attempts after a signal: a machine that is taken away leaves little time.
const LAST_ATTEMPTS: u32 = 3;

/// A checkpoint and what becomes of the others once it is written.
pub struct Job {
    pub checkpoint: Checkpoint,
    pub best: bool,
    /// The best one so far, kept for nothing else.
    pub superseded: Option<u64>,
    /// How many to keep of those written at intervals.
    pub keep: Option<usize>,
}

impl Job {
    /// The pointers come last, `latest` after `best`: whichever moment a run is killed in, what it
    /// goes on from leads to the same checkpoints again.
    fn run(&self, dir: &Path) -> checkpoint::Result<()> {
        let step = self.checkpoint.step;
        checkpoint::save(dir, &self.checkpoint)?;
        if self.best {
            checkpoint::set_pointer(dir, Pointer::Best, step)?;
        }
        checkpoint::set_pointer(dir, Pointer::Latest, step)?;
        if let Some(old) = self.superseded.filter(|&old| old != step) {
            checkpoint::remove(dir, old)?;
        }
        checkpoint::prune(dir, self.keep)
    }

    /// What the thread holds, in bytes.
    fn bytes(&self) -> u64 {
        let moments = self.checkpoint.optimizer.iter();
        let arrays = moments.flat_map(|o| o.first_moments.iter().chain(&o.second_moments));
        let arrays = arrays.chain(&self.checkpoint.parameters);
        arrays.map(|a| 4 * a.values.len() as u64).sum()
    }
}

/// Writes one checkpoint at a time.
pub struct Saver {
    dir: PathBuf,
    /// How long a checkpoint is tried again that could not be written.
    patience: Duration,
    stop: StopSignal,
    running: Option<JoinHandle<Result<()>>>,
    notes: Arc<Mutex<Vec<String>>>,
}

impl Saver {
    /// Writes to `dir`.
    pub fn new(dir: &Path, patience: Duration, stop: StopSignal) -> Saver {
        Saver {
            dir: dir.to_owned(),
            patience,
            stop,
            running: None,
            notes: Arc::default(),
        }
    }

    /// Starts `job` once the one before is done, and waits for it where memory is short.
    ///
    /// # Errors
    /// Where this or an earlier checkpoint could not be written, however often it was tried.
    pub fn submit(&mut self, job: Job) -> Result<()> {
        self.wait()?;
        // While it is written, the next one is not collected; what matters is that the engine and
        // the page cache still find memory.
        let background = available_memory().is_none_or(|free| free > job.bytes() / 2);
        let (dir, patience, stop) = (self.dir.clone(), self.patience, self.stop.clone());
        let notes = Arc::clone(&self.notes);
        let thread = std::thread::Builder::new()
            .name("mpnet-saver".into())
            .spawn(move || write(&job, &dir, patience, &stop, &notes))
            .context("starting the thread that writes checkpoints")?;
        self.running = Some(thread);
        match background {
            true => Ok(()),
            false => self.wait(),
        }
    }

    /// Waits until everything is on the disk.
    ///
    /// # Errors
    /// Where the last checkpoint could not be written.
    pub fn wait(&mut self) -> Result<()> {
        match self.running.take().map(JoinHandle::join) {
            None => Ok(()),
            Some(Ok(result)) => result,
            Some(Err(_)) => Err(anyhow!("the thread that writes checkpoints has panicked")),
        }
    }

    /// Whether everything is on the disk, now or within `patience`.
    ///
    /// # Errors
    /// Where the last checkpoint could not be written.
    pub fn is_done_within(&mut self, patience: Duration) -> Result<bool> {
        let started = Instant::now();
        while self
            .running
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            if started.elapsed() >= patience {
                return Ok(false);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.wait().map(|()| true)
    }

    /// What there is to tell since the last call.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *notes)
    }
}

impl Drop for Saver {
    fn drop(&mut self) {
        // A run that fails for another reason still has the checkpoint that it was writing.
        if let Err(error) = self.wait() {
            tracing::error!("{error:#}");
        }
    }
}

fn write(
    job: &Job,
    dir: &Path,
    patience: Duration,
    stop: &StopSignal,
    notes: &Mutex<Vec<String>>,
) -> Result<()> {
    let mut attempts = Attempts::new(patience, stop);
    tracing::debug!("saving update {}", job.checkpoint.step);
    loop {
        let error = match job.run(dir) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if !attempts.are_left() {
            return Err(error).with_context(|| {
                format!(
                    "saving the checkpoint of update {}; earlier checkpoints are as they were: make \
                     room and go on with --resume",
                    job.checkpoint.step
                )
            });
        }
        let told = format!(
            "the checkpoint of update {} could not be written, and is tried again: {:#}",
            job.checkpoint.step,
            anyhow::Error::new(error)
        );
        tracing::warn!("{told}");
        let mut notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        notes.push(told);
        drop(notes);
        attempts.rest();
    }
}

/// How often and for how long something is tried again that a disk refuses.
pub struct Attempts<'a> {
    started: Instant,
    pause: Duration,
    patience: Duration,
    stop: &'a StopSignal,
    after_signal: u32,
}

impl Attempts<'_> {
    /// For `patience`, less once a signal came.
    pub fn new(patience: Duration, stop: &StopSignal) -> Attempts<'_> {
        Attempts {
            started: Instant::now(),
            pause: SHORTEST_PAUSE,
            patience,
            stop,
            after_signal: 0,
        }
    }

    /// After a failure: whether there is to be another attempt.
    pub fn are_left(&mut self) -> bool {
        self.after_signal += u32::from(self.stop.received().is_some());
        self.started.elapsed() + self.pause <= self.patience && self.after_signal < LAST_ATTEMPTS
    }

    /// Waits before the next attempt, twice as long each time, but not long once a signal came.
    pub fn rest(&mut self) {
        let started = Instant::now();
        while started.elapsed() < self.pause {
            if self.stop.received().is_some() {
                std::thread::sleep(SHORTEST_PAUSE);
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}
