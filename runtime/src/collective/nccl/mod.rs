//! NCCL: collectives between NVIDIA GPUs, and RCCL, which has the same functions, between AMD's.
//!
//! The functions are looked up by name in whichever library is on the machine: `cudarc` asks for `libnccl.so`, which
//! the packages of Python do not have, and for NVIDIA's alone. A communicator does not block, so that
//! an error of the network ends a wait; a rank that is silent is noticed by `watch`.

mod find;
mod functions;
mod gpu;
mod rendezvous;

use std::ffi::{c_int, c_void};
use std::fmt::{self, Debug};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::mpi::Mpi;
use super::{
    Buffer, Collective, CollectiveError, Element, Kind, Memory, Reduction, Result, Spent, Summing,
    least,
};
use functions::{Communicator, Config, Functions, IN_PROGRESS, SUCCESS};
use gpu::Gpu;

pub use find::{Found, find, package};
pub use rendezvous::Rendezvous;

/// The only algorithm and protocol that add in one order, whatever the sizes and whoever comes first.
const DETERMINISTIC: [(&str, &str); 2] = [("NCCL_ALGO", "Ring"), ("NCCL_PROTO", "Simple")];

/// `ncclSum`.
const SUM: c_int = 0;
/// `ncclMax`.
const MAX: c_int = 2;

/// How long a wait asks without a rest.
const SPIN: Duration = Duration::from_millis(10);
/// How often a wait looks for errors of the network.
const ERROR_INTERVAL: Duration = Duration::from_millis(20);

/// Whose GPUs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Vendor {
    /// NVIDIA's: NCCL.
    Nvidia,
    /// AMD's: RCCL.
    Amd,
}

impl Vendor {
    /// Name of the library.
    pub fn library(self) -> &'static str {
        match self {
            Self::Nvidia => "NCCL",
            Self::Amd => "RCCL",
        }
    }
}

/// How to join the ranks of a world of GPUs.
#[derive(Debug)]
pub(super) struct Joining<'a> {
    pub(super) vendor: Vendor,
    pub(super) rank: usize,
    pub(super) world_size: usize,
    /// This rank's GPU, of those that the process sees.
    pub(super) device: i32,
    pub(super) rendezvous: &'a Rendezvous,
    pub(super) timeout: Duration,
    pub(super) deterministic: bool,
}

/// A rank with a GPU of its own.
pub struct Nccl {
    functions: Functions,
    vendor: Vendor,
    rank: usize,
    world_size: usize,
    version: String,
    state: Mutex<State>,
    /// Through which the ranks found each other, where they did; it has to be finished, too.
    mpi: Option<Mpi>,
}

/// What one collective at a time uses.
struct State {
    gpu: Gpu,
    /// None once it was aborted or finished.
    communicator: Option<Communicator>,
    /// Memory of the GPU for buffers of the host.
    staging: gpu::Staging,
}

// SAFETY: streams, memory and communicators may be used from any thread, one at a time, once it has bound the GPU;
// the lock and `Gpu::bind` see to that.
unsafe impl Send for State {}

impl Debug for Nccl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "rank {} of {} by {}",
            self.rank, self.world_size, self.version
        )
    }
}

impl Nccl {
    /// Joins the other ranks; returns when all have come.
    ///
    /// # Errors
    /// There is no library or GPU, or the ranks do not find each other.
    pub(super) fn open(joining: &Joining<'_>) -> Result<Self> {
        let vendor = joining.vendor;
        let found = find(vendor)?;
        if joining.deterministic {
            for (name, value) in DETERMINISTIC {
                if std::env::var_os(name).is_none() {
                    // SAFETY: ranks are joined while this program reads no variables elsewhere; the library reads
                    // them later.
                    unsafe { std::env::set_var(name, value) };
                }
            }
        }
        let functions = Functions::load(vendor, &found.path)?;
        let version = format!("{} {}", vendor.library(), functions.version()?);
        tracing::debug!(path = %found.path.display(), version, "loaded");
        let gpu = Gpu::open(vendor, joining.device)?;
        let (id, mpi) = rendezvous::exchange(&functions, joining)?;
        let mut nccl = Self {
            functions,
            vendor,
            rank: joining.rank,
            world_size: joining.world_size,
            version,
            state: Mutex::new(State {
                gpu,
                communicator: None,
                staging: gpu::Staging::default(),
            }),
            mpi,
        };
        let communicator = nccl.join(id)?;
        nccl.state
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner)
            .communicator = Some(communicator);
        if joining.rank == 0 {
            rendezvous::clean_up(joining.rendezvous);
        }
        Ok(nccl)
    }

    fn join(&self, id: functions::UniqueId) -> Result<Communicator> {
        let size = |size: usize| c_int::try_from(size).unwrap_or(c_int::MAX);
        let mut communicator: Communicator = ptr::null_mut();
        let mut config = Config::not_blocking();
        // SAFETY: the pointers are live for the call; the GPU is this thread's.
        let code = unsafe {
            (self.functions.comm_init_rank_config)(
                &mut communicator,
                size(self.world_size),
                id,
                size(self.rank),
                &mut config,
            )
        };
        self.check("CommInitRankConfig", code, communicator)?;
        self.settle("CommInitRankConfig", communicator)?;
        Ok(communicator)
    }

    /// Waits until the library is done with what it was told.
    fn settle(&self, function: &'static str, communicator: Communicator) -> Result<()> {
        let start = Instant::now();
        loop {
            match self.state_of(communicator) {
                IN_PROGRESS => rest(start),
                SUCCESS => return Ok(()),
                code => return self.check(function, code, communicator),
            }
        }
    }

    /// What has become of the communicator.
    fn state_of(&self, communicator: Communicator) -> c_int {
        let mut state = SUCCESS;
        // SAFETY: the communicator is live, and so is the number.
        match unsafe { (self.functions.comm_get_async_error)(communicator, &mut state) } {
            SUCCESS => state,
            code => code,
        }
    }

    fn check(&self, function: &'static str, code: c_int, communicator: Communicator) -> Result<()> {
        match code {
            SUCCESS | IN_PROGRESS => Ok(()),
            code => Err(self.functions.error(function, code, communicator)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the GPU has done what its stream was given, or the network fails.
    fn wait_for(
        &self,
        function: &'static str,
        state: &mut State,
        communicator: Communicator,
    ) -> Result<()> {
        let start = Instant::now();
        let mut looked = start;
        while !state.gpu.is_idle()? {
            rest(start);
            if looked.elapsed() < ERROR_INTERVAL {
                continue;
            }
            looked = Instant::now();
            let code = self.state_of(communicator);
            if let Err(error) = self.check(function, code, communicator) {
                // Or the kernel would wait for ever, and with it whoever frees memory.
                state.communicator = None;
                // SAFETY: the communicator is live, and not used again.
                unsafe { (self.functions.comm_abort)(communicator) };
                return Err(error);
            }
        }
        Ok(())
    }

    /// What is there until the communicator is aborted or finished.
    fn open_communicator(&self, state: &State) -> Result<Communicator> {
        state.communicator.ok_or(CollectiveError::Closed {
            library: self.vendor.library(),
        })
    }

    /// Runs a collective over buffers, those of the host by way of the GPU's memory.
    fn run(
        &self,
        function: &'static str,
        buffers: &[Buffer],
        enqueue: impl Fn(Buffer, Communicator, *mut c_void) -> Result<c_int>,
    ) -> Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let communicator = self.open_communicator(state)?;
        state.gpu.bind()?;
        let placed = state.staging.place(&state.gpu, buffers)?;
        self.enqueue(function, state, communicator, &placed, enqueue)?;
        self.wait_for(function, state, communicator)?;
        state.staging.bring_back(&state.gpu, buffers, &placed)
    }

    /// Gives the GPU's stream a collective over buffers in its memory.
    fn enqueue(
        &self,
        function: &'static str,
        state: &State,
        communicator: Communicator,
        placed: &[Buffer],
        enqueue: impl Fn(Buffer, Communicator, *mut c_void) -> Result<c_int>,
    ) -> Result<()> {
        let stream = state.gpu.stream();
        // SAFETY: a plain call.
        let code = unsafe { (self.functions.group_start)() };
        self.check("GroupStart", code, communicator)?;
        let mut enqueued = placed
            .iter()
            .filter(|buffer| buffer.len > 0)
            .map(|&buffer| {
                self.check(
                    function,
                    enqueue(buffer, communicator, stream)?,
                    communicator,
                )
            });
        let enqueued = enqueued.find(Result::is_err);
        // SAFETY: a plain call.
        let code = unsafe { (self.functions.group_end)() };
        // A group is ended, whatever became of its calls.
        enqueued.unwrap_or(Ok(()))?;
        self.check("GroupEnd", code, communicator)?;
        self.settle(function, communicator)
    }

    /// `ncclAllReduce` of a buffer in place.
    ///
    /// # Safety
    /// The buffer is in the GPU's memory and as [`Collective::all_reduce`] wants it; the others are live.
    unsafe fn call_all_reduce(
        &self,
        buffer: Buffer,
        operation: c_int,
        communicator: Communicator,
        stream: *mut c_void,
    ) -> c_int {
        let kind = Self::kind_of_number(buffer);
        // SAFETY: the caller's promise.
        unsafe {
            (self.functions.all_reduce)(
                buffer.pointer,
                buffer.pointer,
                buffer.len,
                kind,
                operation,
                communicator,
                stream,
            )
        }
    }

    /// `ncclReduceScatter` of a buffer, this rank's part in place.
    ///
    /// # Safety
    /// As for `call_all_reduce`.
    ///
    /// # Errors
    /// The buffer has no equal parts.
    unsafe fn call_reduce_scatter(
        &self,
        buffer: Buffer,
        communicator: Communicator,
        stream: *mut c_void,
    ) -> Result<c_int> {
        let own = buffer.own_part("reduce_scatter", self.rank, self.world_size)?;
        let kind = Self::kind_of_number(buffer);
        // SAFETY: the caller's promise; the library knows this rank's part of the input for its output.
        Ok(unsafe {
            (self.functions.reduce_scatter)(
                buffer.pointer,
                own.pointer,
                own.len,
                kind,
                SUM,
                communicator,
                stream,
            )
        })
    }

    /// Checks, before anything is begun, that buffers come in equal parts.
    fn check_parts(&self, operation: &'static str, buffers: &[Buffer]) -> Result<()> {
        buffers.iter().try_for_each(|buffer| {
            let own = buffer.own_part(operation, self.rank, self.world_size);
            own.map(drop)
        })
    }

    fn kind_of_number(buffer: Buffer) -> c_int {
        match buffer.element {
            Element::U8 => 1,
            Element::I32 => 2,
            Element::U32 => 3,
            Element::I64 => 4,
            Element::U64 => 5,
            Element::F32 => 7,
            Element::F64 => 8,
        }
    }
}

/// Lets others compute, and after a while sleeps.
fn rest(since: Instant) {
    match since.elapsed() < SPIN {
        true => std::thread::yield_now(),
        false => std::thread::sleep(Duration::from_micros(100)),
    }
}

impl Collective for Nccl {
    fn kind(&self) -> Kind {
        match self.vendor {
            Vendor::Nvidia => Kind::Nccl,
            Vendor::Amd => Kind::Rccl,
        }
    }

    fn description(&self) -> String {
        self.version.clone()
    }

    fn rank(&self) -> usize {
        self.rank
    }

    fn world_size(&self) -> usize {
        self.world_size
    }

    fn memory(&self) -> Memory {
        Memory::Device
    }

    unsafe fn all_reduce(&self, buffers: &[Buffer], reduction: Reduction) -> Result<()> {
        let operation = match reduction {
            Reduction::Sum => SUM,
            Reduction::Max => MAX,
        };
        self.run("AllReduce", buffers, |buffer, communicator, stream| {
            // SAFETY: the caller vouches for the buffer, which is in the GPU's memory now; the others are live.
            Ok(unsafe { self.call_all_reduce(buffer, operation, communicator, stream) })
        })
    }

    unsafe fn reduce_scatter(&self, buffers: &[Buffer]) -> Result<()> {
        self.check_parts("reduce_scatter", buffers)?;
        self.run("ReduceScatter", buffers, |buffer, communicator, stream| {
            // SAFETY: as for `all_reduce`.
            unsafe { self.call_reduce_scatter(buffer, communicator, stream) }
        })
    }

    unsafe fn begin(&self, buffer: Buffer, summing: Summing, after: *mut c_void) -> Result<()> {
        if buffer.memory == Memory::Host {
            // SAFETY: the caller vouches for the buffer.
            return unsafe { summing.run(self, buffer) };
        }
        let state = self.lock();
        let communicator = self.open_communicator(&state)?;
        state.gpu.bind()?;
        if !after.is_null() {
            state.gpu.follow(after)?;
        }
        let buffers = &[buffer];
        match summing {
            Summing::Whole => {
                let call = |buffer, communicator, stream| {
                    // SAFETY: the caller vouches for the buffer until the sum is over; the others are live.
                    Ok(unsafe { self.call_all_reduce(buffer, SUM, communicator, stream) })
                };
                self.enqueue("AllReduce", &state, communicator, buffers, call)
            }
            Summing::OwnPart => {
                self.check_parts("reduce_scatter", buffers)?;
                // SAFETY: as above.
                let call = |buffer, communicator, stream| unsafe {
                    self.call_reduce_scatter(buffer, communicator, stream)
                };
                self.enqueue("ReduceScatter", &state, communicator, buffers, call)
            }
        }
    }

    fn wait(&self) -> Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let communicator = self.open_communicator(state)?;
        state.gpu.bind()?;
        self.wait_for("AllReduce", state, communicator)
    }

    unsafe fn all_gather(&self, buffers: &[Buffer]) -> Result<()> {
        self.check_parts("all_gather", buffers)?;
        self.run("AllGather", buffers, |buffer, communicator, stream| {
            let own = buffer.own_part("all_gather", self.rank, self.world_size)?;
            let kind = Self::kind_of_number(buffer);
            // SAFETY: as for `reduce_scatter`.
            Ok(unsafe {
                (self.functions.all_gather)(
                    own.pointer,
                    buffer.pointer,
                    own.len,
                    kind,
                    communicator,
                    stream,
                )
            })
        })
    }

    unsafe fn broadcast(&self, buffer: Buffer, root: usize) -> Result<()> {
        let root = c_int::try_from(root).unwrap_or(c_int::MAX);
        self.run("Broadcast", &[buffer], |buffer, communicator, stream| {
            let kind = Self::kind_of_number(buffer);
            // SAFETY: as for `all_reduce`.
            Ok(unsafe {
                (self.functions.broadcast)(
                    buffer.pointer,
                    buffer.pointer,
                    buffer.len,
                    kind,
                    root,
                    communicator,
                    stream,
                )
            })
        })
    }

    fn barrier(&self) -> Result<()> {
        let mut nothing = [0_u8];
        // SAFETY: the array is this function's own.
        unsafe { self.all_reduce(&[Buffer::of(&mut nothing)], Reduction::Max) }
    }

    fn time_all_reduce(&self, floats: usize) -> Result<Duration> {
        let buffer = {
            let mut state = self.lock();
            let state = &mut *state;
            state.gpu.bind()?;
            state.staging.reserve(&state.gpu, floats)?
        };
        // SAFETY: the memory is this communicator's own, and no other call moves it meanwhile.
        least(|| unsafe { self.all_reduce(&[buffer], Reduction::Sum) })
    }

    fn finish(&self) -> Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let Some(communicator) = state.communicator.take() else {
            return Ok(());
        };
        state.gpu.bind()?;
        // SAFETY: the communicator is live, and not used again.
        let code = unsafe { (self.functions.comm_finalize)(communicator) };
        self.check("CommFinalize", code, communicator)?;
        self.settle("CommFinalize", communicator)?;
        // SAFETY: it is finalized, and destroyed once.
        let code = unsafe { (self.functions.comm_destroy)(communicator) };
        self.check("CommDestroy", code, ptr::null_mut())?;
        state.staging.clear(&state.gpu)?;
        match &self.mpi {
            Some(mpi) => mpi.finish(),
            None => Ok(()),
        }
    }

    /// The process ends, and with it what the GPU waits for.
    fn abort(&self, _: &str) {}

    fn set_update(&self, _: u64) {}

    fn spent(&self) -> Spent {
        Spent::default()
    }
}
