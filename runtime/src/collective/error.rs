//! What can go wrong among ranks.

use std::path::PathBuf;

use crate::library::LibraryError;

/// An error of [`crate::collective`].
#[derive(Debug, thiserror::Error)]
pub enum CollectiveError {
    /// There is no library.
    #[error("no library of {library} is found ({tried}); {remedy}")]
    NoLibrary {
        /// "MPI" or "NCCL".
        library: &'static str,
        /// Where it was looked for.
        tried: String,
        /// What brings it.
        remedy: String,
    },
    /// A file that is not the library that it should be.
    #[error("{} cannot be used as a library of {library}: {reason}", path.display())]
    Library {
        /// "MPI" or "NCCL".
        library: &'static str,
        /// The file.
        path: PathBuf,
        /// What the loader says.
        reason: String,
    },
    /// A build in the cache cannot be used.
    #[error(transparent)]
    Cache(#[from] LibraryError),
    /// The library knows of another world than the launcher's variables or the flags do.
    #[error(
        "{library} says that this is rank {} of {}, but it was started as rank {} of {}; {}",
        found.0, found.1, asked.0, asked.1, world_remedy(*found)
    )]
    World {
        /// The library.
        library: String,
        /// Rank and size that were asked for.
        asked: (usize, usize),
        /// Rank and size that the library has.
        found: (usize, usize),
    },
    /// MPI can be set up once in a process.
    #[error("MPI is in use in this process already, or was; it can be set up once only")]
    Again,
    /// A collective failed on this rank.
    #[error("rank {rank} of {world_size} on {host}: {operation} of update {update} failed")]
    Failed {
        /// This rank.
        rank: usize,
        /// The number of ranks.
        world_size: usize,
        /// This machine.
        host: String,
        /// "all_reduce", for instance.
        operation: &'static str,
        /// The update in which it happened.
        update: u64,
        /// What the library says.
        source: Box<CollectiveError>,
    },
    /// What the library answers.
    #[error("{function} of {library} says: {message} (code {code})")]
    Call {
        /// The library.
        library: &'static str,
        /// Its function.
        function: &'static str,
        /// Its words.
        message: String,
        /// Its number.
        code: i32,
    },
    /// More elements than the library counts.
    #[error(
        "{operation} takes at most {} elements at once, not {elements}",
        i32::MAX
    )]
    TooLong {
        /// "all_gather", for instance.
        operation: &'static str,
        /// Elements that were given.
        elements: usize,
    },
    /// A buffer that does not come in equal parts.
    #[error("{operation}: {len} elements are not {world_size} equal parts")]
    Shape {
        /// "all_gather", for instance.
        operation: &'static str,
        /// The number of ranks.
        world_size: usize,
        /// Elements of the buffer.
        len: usize,
    },
    /// A buffer where the library does not reach.
    #[error("{library} takes buffers in the host's memory, not on a GPU")]
    Memory {
        /// The library.
        library: &'static str,
    },
    /// A collective after the communicator's end.
    #[error("{library} has failed or was finished before; no further collective is possible")]
    Closed {
        /// The library.
        library: &'static str,
    },
    /// A library that adds wrongly.
    #[error("{library} sums small integers wrongly; it does not fit this machine")]
    WrongSum {
        /// The library and its version.
        library: String,
    },
    /// A GPU that is not there.
    #[error(
        "there is no GPU {device} here, or its driver is missing; each rank needs one of its own"
    )]
    NoGpu {
        /// Its number among those that the process sees.
        device: i32,
    },
    /// What should have been rank 0's id.
    #[error("what {source_name} holds is no id of NCCL; start all ranks anew")]
    NotAnId {
        /// Where it came from.
        source_name: String,
    },
    /// The system refused something.
    #[error("cannot {doing}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: std::io::Error,
    },
}

/// What to do where the library found another world.
fn world_remedy(found: (usize, usize)) -> &'static str {
    match found.1 {
        1 => "start it with the mpiexec that belongs to this library (`mpnet doctor` names both)",
        _ => "let the launcher alone say how many there are",
    }
}
