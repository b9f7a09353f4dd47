//! Several processes that train one model: sums, copies and meeting points among them.
//!
//! Nothing here opens a connection of its own. Between GPUs it is [NCCL or RCCL](nccl), between processors
//! [MPI](mpi), through whichever library is on the machine; one process alone is [`Solo`]. Every call is made by all
//! ranks in the same order.

mod buffer;
mod error;
pub mod mpi;
pub mod nccl;
mod overlap;
mod presence;
mod solo;
mod values;
mod watch;

use std::ffi::c_void;
use std::fmt::{self, Debug};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mpnet_plan::Provider;

pub use buffer::{Buffer, Element, Memory, Number, Whole};
pub use error::CollectiveError;
pub use nccl::Rendezvous;
pub(crate) use overlap::Overlap;
pub use overlap::Summing;
pub use solo::Solo;

/// `Result` of this module.
pub type Result<T, E = CollectiveError> = std::result::Result<T, E>;

/// Exit code of a process that ends because another one is missing: "try again", as `sysexits.h` has it.
pub const EXIT_CODE: i32 = 75;

/// What joins the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is one rank.
    Solo,
    /// MPI, in the host's memory.
    Mpi,
    /// NCCL, between NVIDIA GPUs.
    Nccl,
    /// RCCL, between AMD GPUs.
    Rccl,
}

impl Kind {
    /// What suits a world of that size.
    pub fn choose(provider: Provider, world_size: usize) -> Self {
        if world_size <= 1 {
            return Self::Solo;
        }
        match provider {
            Provider::Cuda => Self::Nccl,
            Provider::Rocm | Provider::MigraphX => Self::Rccl,
            Provider::Cpu
            | Provider::DirectMl
            | Provider::OpenVino
            | Provider::WebGpu
            | Provider::OpenVinoPlugin
            | Provider::WebGpuPlugin
            | Provider::TensorRtRtxPlugin
            | Provider::MlxPlugin
            | Provider::Plugin => Self::Mpi,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Solo => "one process",
            Self::Mpi => "MPI",
            Self::Nccl => "NCCL",
            Self::Rccl => "RCCL",
        })
    }
}

/// How values of several ranks become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// Added up.
    Sum,
    /// The largest. Not for floats that may be NaN: libraries differ in what becomes of it, and even ranks do.
    Max,
}

/// What was spent in collectives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Spent {
    /// Calls.
    pub calls: u64,
    /// Bytes of their inputs.
    pub bytes: u64,
    /// Time in them, waiting for other ranks included.
    pub time: Duration,
}

/// A group of ranks, seen by one of them.
///
/// The safe forms, for values of the host, are methods of `dyn Collective`: [`sum`](trait.Collective.html#method.sum)
/// and those beside it.
pub trait Collective: Send + Sync + Debug {
    /// What joins the ranks.
    fn kind(&self) -> Kind;

    /// The library and its version, for people.
    fn description(&self) -> String;

    /// Which rank this is, from 0.
    fn rank(&self) -> usize;

    /// How many ranks there are.
    fn world_size(&self) -> usize;

    /// Where large buffers should lie. Buffers of the host are taken everywhere.
    fn memory(&self) -> Memory;

    /// Replaces the values of each rank, in all of `buffers`, by those of all ranks together.
    ///
    /// # Safety
    /// The buffers are live, of their element types, and nothing else reads or writes them meanwhile.
    ///
    /// # Errors
    /// The library fails, or does not reach the memory.
    unsafe fn all_reduce(&self, buffers: &[Buffer], reduction: Reduction) -> Result<()>;

    /// Sums each of `buffers` over the ranks. Each rank gets its part alone, in place: the first of as many equal
    /// parts as there are ranks is rank 0's. The other parts then hold anything.
    ///
    /// # Safety
    /// As for [`all_reduce`](Self::all_reduce).
    ///
    /// # Errors
    /// As for [`all_reduce`](Self::all_reduce), or a length is no multiple of the number of ranks.
    unsafe fn reduce_scatter(&self, buffers: &[Buffer]) -> Result<()>;

    /// Begins a sum over the ranks of what the GPU's stream `after` will have written when it has done what it was given
    /// so far; null where it is there already. It may be over when this returns, and is after [`wait`](Self::wait).
    /// Whatever other collective is called meanwhile comes behind it.
    ///
    /// # Safety
    /// As for [`all_reduce`](Self::all_reduce), until it is over.
    ///
    /// # Errors
    /// As for [`all_reduce`](Self::all_reduce) and [`reduce_scatter`](Self::reduce_scatter).
    unsafe fn begin(&self, buffer: Buffer, summing: Summing, after: *mut c_void) -> Result<()>;

    /// Waits until all is over that was [begun](Self::begin).
    ///
    /// # Errors
    /// The library fails.
    fn wait(&self) -> Result<()>;

    /// Gives each rank the parts of all others, of which each has its own in place, as
    /// [`reduce_scatter`](Self::reduce_scatter) leaves them.
    ///
    /// # Safety
    /// As for [`all_reduce`](Self::all_reduce).
    ///
    /// # Errors
    /// As for [`reduce_scatter`](Self::reduce_scatter).
    unsafe fn all_gather(&self, buffers: &[Buffer]) -> Result<()>;

    /// Gives all ranks what the rank `root` has.
    ///
    /// # Safety
    /// As for [`all_reduce`](Self::all_reduce).
    ///
    /// # Errors
    /// As for [`all_reduce`](Self::all_reduce).
    unsafe fn broadcast(&self, buffer: Buffer, root: usize) -> Result<()>;

    /// Returns when every rank has come here.
    ///
    /// # Errors
    /// The library fails.
    fn barrier(&self) -> Result<()>;

    /// How long it takes to sum so many floats over the ranks where [large buffers lie](Self::memory): the least of
    /// some times.
    ///
    /// # Errors
    /// The library fails, or there is no room.
    fn time_all_reduce(&self, floats: usize) -> Result<Duration>;

    /// Says goodbye, once, after the last collective. Who ends without it has failed: launchers end the others then.
    ///
    /// # Errors
    /// The library fails.
    fn finish(&self) -> Result<()>;

    /// Lets the other ranks know that this one fails, and why. The process should end then.
    fn abort(&self, reason: &str);

    /// Which update is being made, for messages.
    fn set_update(&self, update: u64);

    /// Lets the other ranks know that this one waits for something of its own, outside collectives, as long as it may
    /// take; `None` when it is there. They go on waiting for it as long as its process says so.
    fn waits_for(&self, _what: Option<&'static str>) {}

    /// What was spent since the start.
    fn spent(&self) -> Spent;
}

/// The least of some times that a sum over ranks takes.
fn least(mut run: impl FnMut() -> Result<()>) -> Result<Duration> {
    const TIMES: usize = 4;
    let mut least = Duration::MAX;
    for _ in 0..TIMES {
        let start = Instant::now();
        run()?;
        least = least.min(start.elapsed());
    }
    Ok(least)
}

/// Joins the other ranks, has them sum something that is known, and takes leave: what they met by, and how fast a sum
/// of so many floats is.
///
/// # Errors
/// They do not meet, or the sum fails or is wrong.
pub fn try_out(opening: Opening, floats: usize) -> Result<(String, Duration)> {
    let ranks = open(opening)?;
    let size = ranks.world_size() as i64;
    let mut values = [ranks.rank() as i64 + 1, 1];
    ranks.sum(&mut values)?;
    if values != [size * (size + 1) / 2, size] {
        return Err(CollectiveError::WrongSum {
            library: ranks.description(),
        });
    }
    let time = ranks.time_all_reduce(floats)?;
    ranks.finish()?;
    Ok((ranks.description(), time))
}

/// The one rank of a world of one.
pub fn solo() -> Arc<dyn Collective> {
    Arc::new(Solo)
}

/// Takes a line of text.
pub type Tell = Box<dyn Fn(&str) + Send + Sync>;

/// How to join the other ranks.
pub struct Opening {
    /// What joins them.
    pub kind: Kind,
    /// Which rank this is.
    pub rank: usize,
    /// How many there are.
    pub world_size: usize,
    /// This rank's GPU, of those that the process sees, where it has one.
    pub device: i32,
    /// How ranks with GPUs find each other.
    pub rendezvous: Rendezvous,
    /// Whether sums are to have the same bits in each run, where that costs something: between GPUs.
    pub deterministic: bool,
    /// A folder that all ranks see, where each leaves word of itself: without one, a rank that is missing is not
    /// named.
    pub presence: Option<PathBuf>,
    /// How long a collective may take.
    pub timeout: Duration,
    /// Told why, just before this process ends because of another one; must not use the collective.
    pub on_trouble: Option<Tell>,
}

impl Debug for Opening {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Opening")
            .field("kind", &self.kind)
            .field("rank", &self.rank)
            .field("world_size", &self.world_size)
            .finish_non_exhaustive()
    }
}

/// Joins the other ranks; returns when all have come.
///
/// # Errors
/// There is no library, it fails, or the ranks do not agree on how many they are.
pub fn open(mut opening: Opening) -> Result<Arc<dyn Collective>> {
    let kind = opening.kind;
    if kind == Kind::Solo {
        return match opening.world_size {
            0 | 1 => Ok(solo()),
            size => Err(CollectiveError::World {
                library: kind.to_string(),
                asked: (opening.rank, size),
                found: (0, 1),
            }),
        };
    }
    let watch = watch::Watch::start(&mut opening)?;
    let between_gpus = |vendor| {
        watch.guard("meeting", 0, || {
            nccl::Nccl::open(&nccl::Joining {
                vendor,
                rank: opening.rank,
                world_size: opening.world_size,
                device: opening.device,
                rendezvous: &opening.rendezvous,
                timeout: opening.timeout,
                deterministic: opening.deterministic,
            })
        })
    };
    let joined: Box<dyn Collective> = match kind {
        Kind::Solo => Box::new(Solo),
        Kind::Nccl => Box::new(between_gpus(nccl::Vendor::Nvidia)?),
        Kind::Rccl => Box::new(between_gpus(nccl::Vendor::Amd)?),
        Kind::Mpi => Box::new(watch.guard("meeting", 0, || {
            mpi::Mpi::open(opening.rank, opening.world_size)
        })?),
    };
    let watched = watch::Watched::new(joined, watch);
    watched.meet(opening.presence.as_deref())?;
    Ok(Arc::new(watched))
}
