//! Notices when another rank is missing, and ends this process with its name.
//!
//! A collective in which one rank is missing waits for ever: neither NCCL nor MPI notices a process
//! that hangs, and not every launcher one that is gone. So a thread of each rank looks at what the others
//! leave word of in a folder that all see, and at how long this rank's own collective has waited.

use std::ffi::c_void;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::presence::{Presence, Word, host};
use super::{
    Buffer, Collective, CollectiveError, EXIT_CODE, Kind, Memory, Opening, Reduction, Result,
    Spent, Summing, Tell,
};

/// How often the thread looks.
const INTERVAL: Duration = Duration::from_millis(500);

/// What the thread and the rank share.
struct Shared {
    rank: usize,
    world_size: usize,
    timeout: Duration,
    on_trouble: Option<Tell>,
    update: AtomicU64,
    calls: AtomicU64,
    bytes: AtomicU64,
    nanoseconds: AtomicU64,
    finished: AtomicBool,
    /// The collective that is being waited for, and since when.
    current: Mutex<Option<(&'static str, Instant)>>,
    /// What this rank waits for outside collectives, and since when.
    waits_for: Mutex<Option<(&'static str, Instant)>>,
    /// What those who have not come have said last, and when.
    excuse: Mutex<Option<(String, Instant)>>,
    /// Once all ranks have met, where there is a folder.
    presence: Mutex<Option<Presence>>,
}

/// The thread's side of a rank.
#[derive(Clone)]
pub(super) struct Watch {
    shared: Arc<Shared>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Watch {
    /// Starts the thread.
    pub(super) fn start(opening: &mut Opening) -> Result<Self> {
        let shared = Arc::new(Shared {
            rank: opening.rank,
            world_size: opening.world_size,
            timeout: opening.timeout,
            on_trouble: opening.on_trouble.take(),
            update: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            nanoseconds: AtomicU64::new(0),
            finished: AtomicBool::new(false),
            current: Mutex::new(None),
            waits_for: Mutex::new(None),
            excuse: Mutex::new(None),
            presence: Mutex::new(None),
        });
        let seen = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("ranks".to_owned())
            .spawn(move || {
                while let Some(shared) = seen.upgrade() {
                    if shared.finished.load(Ordering::SeqCst) {
                        return;
                    }
                    shared.look();
                    drop(shared);
                    std::thread::sleep(INTERVAL);
                }
            })
            .map_err(|source| CollectiveError::Io {
                doing: "start the thread that watches the other ranks".to_owned(),
                source,
            })?;
        Ok(Self { shared })
    }

    /// Runs a collective, which must be over in time.
    pub(super) fn guard<T>(
        &self,
        operation: &'static str,
        bytes: usize,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let start = Instant::now();
        let result = self.guard_beside(operation, bytes, run);
        let spent = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.shared.nanoseconds.fetch_add(spent, Ordering::Relaxed);
        result
    }

    /// The same for what takes no time from this rank, whose GPU has other work meanwhile.
    fn guard_beside<T>(
        &self,
        operation: &'static str,
        bytes: usize,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let shared = &self.shared;
        *held(&shared.current) = Some((operation, Instant::now()));
        let result = run();
        *held(&shared.current) = None;
        shared.calls.fetch_add(1, Ordering::Relaxed);
        shared.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        result.map_err(|source| CollectiveError::Failed {
            rank: shared.rank,
            world_size: shared.world_size,
            host: host(),
            operation,
            update: shared.update.load(Ordering::Relaxed),
            source: Box::new(source),
        })
    }
}

impl Shared {
    /// What this rank leaves word of.
    fn word(&self) -> Word {
        let current = *held(&self.current);
        let waits_for = *held(&self.waits_for);
        Word {
            update: self.update.load(Ordering::Relaxed),
            calls: self.calls.load(Ordering::Relaxed),
            operation: current.map(|(operation, _)| operation.to_owned()),
            waits_for: waits_for.map(|(what, since)| (what.to_owned(), since.elapsed().as_secs())),
        }
    }

    /// Looks once; ends the process if another rank is missing.
    fn look(&self) {
        let word = self.word();
        let waiting = *held(&self.current);
        let mut presence = held(&self.presence);
        if self.finished.load(Ordering::SeqCst) {
            return;
        }
        if let Some(presence) = presence.as_mut() {
            presence.leave(&word);
            if let Some(missing) = presence.missing() {
                drop_out(self, &missing, Some(presence));
            }
        }
        let Some((operation, since)) = waiting else {
            *held(&self.excuse) = None;
            return;
        };
        let waited = since.elapsed();
        if waited < self.timeout {
            return;
        }
        let excuse = presence
            .as_ref()
            .and_then(|presence| presence.excuse(&word));
        if excuse.is_some_and(|excuse| self.accepts(excuse)) {
            return;
        }
        let behind = presence.as_mut().map(|presence| presence.behind(&word));
        let why = format!(
            "{operation} of update {} has waited for {} s{}",
            word.update,
            waited.as_secs(),
            behind.map_or_else(
                || format!("; not all of the {} ranks have come", self.world_size),
                |behind| format!("; {behind}")
            )
        );
        drop_out(self, &why, presence.as_mut());
    }
}

impl Shared {
    /// Whether those who have not come are there all the same, as what they say changes.
    fn accepts(&self, excuse: String) -> bool {
        let mut heard = held(&self.excuse);
        match &mut *heard {
            Some((last, since)) if *last == excuse => since.elapsed() < self.timeout,
            Some((last, since)) => {
                (*last, *since) = (excuse, Instant::now());
                true
            }
            none => {
                let text = format!(
                    "rank {} of {} goes on waiting: {excuse}",
                    self.rank, self.world_size
                );
                let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
                *none = Some((excuse, Instant::now()));
                true
            }
        }
    }
}

/// Ends the process because of another one.
fn drop_out(shared: &Shared, why: &str, presence: Option<&mut Presence>) -> ! {
    let text = format!(
        "rank {} of {} on {} ends: {why}",
        shared.rank,
        shared.world_size,
        host()
    );
    if let Some(presence) = presence {
        presence.fail(why);
    }
    if let Some(tell) = &shared.on_trouble {
        tell(&text);
    }
    // One write a line, so that the lines of several ranks stay whole.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
    leave(EXIT_CODE)
}

/// Ends the process at once: what others do at exit may wait for the missing rank, too.
fn leave(code: i32) -> ! {
    #[cfg(unix)]
    {
        // SAFETY: this is the C library's function of that name.
        unsafe extern "C" {
            fn _exit(code: i32) -> !;
        }
        // SAFETY: it returns nothing and touches nothing of this program.
        unsafe { _exit(code) }
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

fn bytes(buffers: &[Buffer]) -> usize {
    buffers.iter().map(Buffer::bytes).sum()
}

/// A collective under watch, which counts what is spent in it.
pub(super) struct Watched {
    inner: Box<dyn Collective>,
    watch: Watch,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl Watched {
    pub(super) fn new(inner: Box<dyn Collective>, watch: Watch) -> Self {
        Self { inner, watch }
    }

    /// Agrees with the other ranks on what this run is called, and begins to leave word in `folder`.
    pub(super) fn meet(&self, folder: Option<&std::path::Path>) -> Result<()> {
        let this: &dyn Collective = self;
        let mut key = Presence::new_key().into_bytes();
        this.broadcast_bytes(&mut key, 0)?;
        if let (Some(folder), 0) = (folder, self.rank()) {
            // The others leave word after they have met this one below.
            Presence::clear(folder, &String::from_utf8_lossy(&key));
        }
        let hosts = this.gather_strings(&host())?;
        if let Some(folder) = folder {
            let key = String::from_utf8_lossy(&key).into_owned();
            let mut presence = Presence::new(folder, key, self.rank(), hosts)?;
            presence.leave(&self.watch.shared.word());
            // All have left word before any looks for it.
            self.barrier()?;
            *held(&self.watch.shared.presence) = Some(presence);
        }
        Ok(())
    }
}

impl Collective for Watched {
    fn kind(&self) -> Kind {
        self.inner.kind()
    }

    fn description(&self) -> String {
        self.inner.description()
    }

    fn rank(&self) -> usize {
        self.inner.rank()
    }

    fn world_size(&self) -> usize {
        self.inner.world_size()
    }

    fn memory(&self) -> Memory {
        self.inner.memory()
    }

    unsafe fn all_reduce(&self, buffers: &[Buffer], reduction: Reduction) -> Result<()> {
        self.watch.guard("all_reduce", bytes(buffers), || {
            // SAFETY: the caller vouches for the buffers.
            unsafe { self.inner.all_reduce(buffers, reduction) }
        })
    }

    unsafe fn reduce_scatter(&self, buffers: &[Buffer]) -> Result<()> {
        self.watch.guard("reduce_scatter", bytes(buffers), || {
            // SAFETY: the caller vouches for the buffers.
            unsafe { self.inner.reduce_scatter(buffers) }
        })
    }

    unsafe fn begin(&self, buffer: Buffer, summing: Summing, after: *mut c_void) -> Result<()> {
        let (operation, bytes) = (summing.operation(), buffer.bytes());
        // SAFETY: the caller vouches for the buffer.
        let begin = || unsafe { self.inner.begin(buffer, summing, after) };
        match buffer.memory {
            Memory::Host => self.watch.guard(operation, bytes, begin),
            Memory::Device => self.watch.guard_beside(operation, bytes, begin),
        }
    }

    fn wait(&self) -> Result<()> {
        self.watch
            .guard("the sum of gradients", 0, || self.inner.wait())
    }

    unsafe fn all_gather(&self, buffers: &[Buffer]) -> Result<()> {
        self.watch.guard("all_gather", bytes(buffers), || {
            // SAFETY: the caller vouches for the buffers.
            unsafe { self.inner.all_gather(buffers) }
        })
    }

    unsafe fn broadcast(&self, buffer: Buffer, root: usize) -> Result<()> {
        self.watch.guard("broadcast", buffer.bytes(), || {
            // SAFETY: the caller vouches for the buffer.
            unsafe { self.inner.broadcast(buffer, root) }
        })
    }

    fn barrier(&self) -> Result<()> {
        self.watch.guard("barrier", 0, || self.inner.barrier())
    }

    fn time_all_reduce(&self, floats: usize) -> Result<Duration> {
        self.watch
            .guard("all_reduce", 0, || self.inner.time_all_reduce(floats))
    }

    fn finish(&self) -> Result<()> {
        // Until all are here, none may take another's absence for a failure.
        self.barrier()?;
        self.watch.shared.finished.store(true, Ordering::SeqCst);
        let presence = held(&self.watch.shared.presence).take();
        self.barrier()?;
        if let Some(presence) = presence {
            presence.remove();
        }
        self.inner.finish()
    }

    fn abort(&self, reason: &str) {
        // From here on this process ends by itself, with its own exit code.
        self.watch.shared.finished.store(true, Ordering::SeqCst);
        if let Some(presence) = held(&self.watch.shared.presence).as_mut() {
            presence.fail(reason);
        }
        self.inner.abort(reason);
    }

    fn set_update(&self, update: u64) {
        self.watch.shared.update.store(update, Ordering::Relaxed);
    }

    fn waits_for(&self, what: Option<&'static str>) {
        *held(&self.watch.shared.waits_for) = what.map(|what| (what, Instant::now()));
    }

    fn spent(&self) -> Spent {
        let shared = &self.watch.shared;
        Spent {
            calls: shared.calls.load(Ordering::Relaxed),
            bytes: shared.bytes.load(Ordering::Relaxed),
            time: Duration::from_nanos(shared.nanoseconds.load(Ordering::Relaxed)),
        }
    }
}
