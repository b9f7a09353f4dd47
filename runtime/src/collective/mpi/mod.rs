//! MPI: collectives in the host's memory, through whichever library is on the machine.
//!
//! Ranks are processes that a launcher of that library (`mpiexec`, `srun`) has started; a process
//! without one is a world of its own. Nothing is linked: see `conventions` for what libraries agree on.

mod conventions;
mod find;
mod functions;

use std::ffi::{c_int, c_void};
use std::fmt::{self, Debug};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{
    Buffer, Collective, CollectiveError, Element, Kind, Memory, Reduction, Result, Spent, Summing,
    least,
};
use conventions::Constants;
use functions::Functions;

pub use find::{Found, PACKAGE, find, launcher};

/// The most elements of one call: as many as MPI's `int` counts, in even pieces.
const MOST: usize = 1 << 30;

/// MPICH changes its algorithm, and with it the order of a sum, after some calls; not with this (see its variable
/// `MPIR_CVAR_POSIX_NUM_COLLS_THRESHOLD`), so that a resumed run adds as the first one did.
const SAME_ORDER: (&str, &str) = ("MPIR_CVAR_POSIX_NUM_COLLS_THRESHOLD", "0");

/// A rank among those that an MPI launcher has started.
pub struct Mpi {
    functions: Functions,
    constants: Constants,
    rank: usize,
    world_size: usize,
    version: String,
    finished: AtomicBool,
}

impl Debug for Mpi {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "rank {} of {} by {}",
            self.rank, self.world_size, self.version
        )
    }
}

/// Claims MPI for this process, which can set it up once.
fn claim() -> Result<()> {
    static USED: AtomicBool = AtomicBool::new(false);
    match USED.swap(true, Ordering::SeqCst) {
        false => Ok(()),
        true => Err(CollectiveError::Again),
    }
}

impl Mpi {
    /// Finds a library, sets it up and compares its world with the one that is expected.
    ///
    /// # Errors
    /// There is no library, it fails, or knows another world.
    pub fn open(rank: usize, world_size: usize) -> Result<Self> {
        let mpi = Self::join()?;
        if (mpi.rank, mpi.world_size) != (rank, world_size) {
            let error = CollectiveError::World {
                library: mpi.version.clone(),
                asked: (rank, world_size),
                found: (mpi.rank, mpi.world_size),
            };
            return Err(error);
        }
        Ok(mpi)
    }

    /// Finds a library and sets it up, whatever world it knows.
    ///
    /// # Errors
    /// There is no library, or it fails.
    pub fn join() -> Result<Self> {
        let found = find()?;
        let (functions, constants) = functions::load(&found.path)?;
        claim()?;
        if std::env::var_os(SAME_ORDER.0).is_none() {
            // SAFETY: ranks are joined while this program reads no variables elsewhere; MPI_Init reads it in this
            // thread.
            unsafe { std::env::set_var(SAME_ORDER.0, SAME_ORDER.1) };
        }
        let mut provided = 0;
        // SAFETY: null stands for arguments that MPI does not need; the number is live.
        let code = unsafe {
            (functions.init_thread)(
                ptr::null_mut(),
                ptr::null_mut(),
                constants.thread_serialized,
                &mut provided,
            )
        };
        let mut mpi = Self {
            functions,
            constants,
            rank: 0,
            world_size: 1,
            version: String::new(),
            finished: AtomicBool::new(false),
        };
        mpi.check("MPI_Init_thread", code)?;
        // Errors come back as codes instead of ending the process.
        let (world, handler) = (mpi.constants.world, mpi.constants.errors_return);
        // SAFETY: handles of this library, and live numbers.
        unsafe {
            let code = (mpi.functions.comm_set_errhandler)(world, handler);
            mpi.check("MPI_Comm_set_errhandler", code)?;
            let (mut rank, mut size) = (0, 0);
            let code = (mpi.functions.comm_rank)(world, &mut rank);
            mpi.check("MPI_Comm_rank", code)?;
            let code = (mpi.functions.comm_size)(world, &mut size);
            mpi.check("MPI_Comm_size", code)?;
            mpi.rank = usize::try_from(rank).unwrap_or(0);
            mpi.world_size = usize::try_from(size).unwrap_or(1);
        }
        mpi.version = mpi.functions.version();
        tracing::debug!(path = %found.path.display(), version = mpi.version, "MPI is set up");
        Ok(mpi)
    }

    fn check(&self, function: &'static str, code: c_int) -> Result<()> {
        match code {
            0 => Ok(()),
            code => Err(CollectiveError::Call {
                library: "MPI",
                function,
                message: self.functions.error_string(code),
                code,
            }),
        }
    }

    /// Type and length of a buffer, as MPI takes them.
    fn describe(&self, operation: &'static str, buffer: Buffer) -> Result<(usize, c_int)> {
        match buffer.memory {
            Memory::Host => {}
            Memory::Device => return Err(CollectiveError::Memory { library: "MPI" }),
        }
        let too_long = |_| CollectiveError::TooLong {
            operation,
            elements: buffer.len,
        };
        let len = c_int::try_from(buffer.len).map_err(too_long)?;
        let types = &self.constants.types;
        let element = match buffer.element {
            Element::F32 => types.float,
            Element::F64 => types.double,
            Element::I32 => types.int32,
            Element::I64 => types.int64,
            Element::U8 => types.uint8,
            Element::U32 => types.uint32,
            Element::U64 => types.uint64,
        };
        Ok((element, len))
    }
}

/// A buffer in pieces that one call takes.
fn pieces(buffer: Buffer) -> impl Iterator<Item = Buffer> {
    let starts = (0..buffer.len).step_by(MOST);
    starts.filter_map(move |start| buffer.part(start, MOST.min(buffer.len - start)))
}

impl Collective for Mpi {
    fn kind(&self) -> Kind {
        Kind::Mpi
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
        Memory::Host
    }

    unsafe fn all_reduce(&self, buffers: &[Buffer], reduction: Reduction) -> Result<()> {
        let operation = match reduction {
            Reduction::Sum => self.constants.sum,
            Reduction::Max => self.constants.max,
        };
        for piece in buffers.iter().copied().flat_map(pieces) {
            let (element, len) = self.describe("all_reduce", piece)?;
            // SAFETY: the caller vouches for the buffer; the handles are this library's.
            let code = unsafe {
                (self.functions.allreduce)(
                    self.constants.in_place(),
                    piece.pointer,
                    len,
                    element,
                    operation,
                    self.constants.world,
                )
            };
            self.check("MPI_Allreduce", code)?;
        }
        Ok(())
    }

    unsafe fn reduce_scatter(&self, buffers: &[Buffer]) -> Result<()> {
        for &buffer in buffers {
            let own = buffer.own_part("reduce_scatter", self.rank, self.world_size)?;
            let (element, len) = self.describe("reduce_scatter", own)?;
            // In place, MPI would leave the result where the first part is.
            let mut result = vec![0u64; own.bytes().div_ceil(8)];
            // SAFETY: the caller vouches for the buffer, there is room for the result, the handles are this library's.
            let code = unsafe {
                (self.functions.reduce_scatter_block)(
                    buffer.pointer,
                    result.as_mut_ptr().cast(),
                    len,
                    element,
                    self.constants.sum,
                    self.constants.world,
                )
            };
            self.check("MPI_Reduce_scatter_block", code)?;
            // SAFETY: both have as many bytes as this rank's part.
            unsafe {
                let result = result.as_ptr().cast::<u8>();
                ptr::copy_nonoverlapping(result, own.pointer.cast(), own.bytes());
            }
        }
        Ok(())
    }

    /// Done at once: it would take the processor from what it runs beside.
    unsafe fn begin(&self, buffer: Buffer, summing: Summing, _: *mut c_void) -> Result<()> {
        // SAFETY: the caller vouches for the buffer.
        unsafe { summing.run(self, buffer) }
    }

    fn wait(&self) -> Result<()> {
        Ok(())
    }

    unsafe fn all_gather(&self, buffers: &[Buffer]) -> Result<()> {
        for &buffer in buffers {
            let own = buffer.own_part("all_gather", self.rank, self.world_size)?;
            let (element, len) = self.describe("all_gather", own)?;
            // SAFETY: the caller vouches for the buffer; the handles are this library's.
            let code = unsafe {
                (self.functions.allgather)(
                    self.constants.in_place(),
                    len,
                    element,
                    buffer.pointer,
                    len,
                    element,
                    self.constants.world,
                )
            };
            self.check("MPI_Allgather", code)?;
        }
        Ok(())
    }

    unsafe fn broadcast(&self, buffer: Buffer, root: usize) -> Result<()> {
        let root = c_int::try_from(root).unwrap_or(c_int::MAX);
        for piece in pieces(buffer) {
            let (element, len) = self.describe("broadcast", piece)?;
            // SAFETY: the caller vouches for the buffer; the handles are this library's.
            let code = unsafe {
                (self.functions.bcast)(piece.pointer, len, element, root, self.constants.world)
            };
            self.check("MPI_Bcast", code)?;
        }
        Ok(())
    }

    fn barrier(&self) -> Result<()> {
        // SAFETY: the handle is this library's.
        let code = unsafe { (self.functions.barrier)(self.constants.world) };
        self.check("MPI_Barrier", code)
    }

    fn time_all_reduce(&self, floats: usize) -> Result<Duration> {
        let mut values = vec![0.0_f32; floats];
        let ranks: &dyn Collective = self;
        least(|| ranks.sum(&mut values))
    }

    fn finish(&self) -> Result<()> {
        if self.finished.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        // SAFETY: MPI is set up, and not finished before.
        let code = unsafe { (self.functions.finalize)() };
        self.check("MPI_Finalize", code)
    }

    /// Launchers end the others as soon as a process ends without having finished.
    fn abort(&self, _: &str) {}

    fn set_update(&self, _: u64) {}

    fn spent(&self) -> Spent {
        Spent::default()
    }
}
