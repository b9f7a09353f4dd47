//! What can go wrong while finding, fetching and loading a build of ONNX Runtime.

use std::path::PathBuf;

use mpnet_plan::Provider;

/// An error of [`crate::library`]. Every message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum LibraryError {
    /// A file or folder could not be read or written.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as a verb phrase ("read", "create the folder").
        doing: &'static str,
        /// The file or folder concerned.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The platform names no home for caches and `MPNET_CACHE` is not set.
    #[error("there is no cache folder for this user; set MPNET_CACHE to a writable folder")]
    NoCacheFolder,
    /// `--ort` or `ORT_DYLIB_PATH` points at nothing.
    #[error(
        "{origin} names {}, which does not exist; give a library, a wheel or a folder holding one",
        path.display()
    )]
    Missing {
        /// Which option or variable named the path.
        origin: &'static str,
        /// The path as given.
        path: PathBuf,
    },
    /// What was given is to be fetched first.
    #[error(transparent)]
    Pointer(#[from] crate::lfs::LfsPointer),
    /// A folder was given that holds no build.
    #[error(
        "{origin} names the folder {}, in which there is neither an ONNX Runtime library, a training extension nor a wheel",
        path.display()
    )]
    EmptyFolder {
        /// Which option or variable named the path.
        origin: &'static str,
        /// The folder as given.
        path: PathBuf,
    },
    /// The file is no shared library of this system, or a damaged one.
    #[error(
        "{} is not a shared library that can be read ({reason}); it may be damaged or cut short: fetch it again",
        path.display()
    )]
    NotALibrary {
        /// The file.
        path: PathBuf,
        /// What the reader found.
        reason: String,
    },
    /// A provider whose libraries are not on this machine.
    #[error("{} needs {names}, which this machine does not have; {remedy}", library.display())]
    MissingLibraries {
        /// The provider's library.
        library: PathBuf,
        /// What it needs.
        names: String,
        /// The line that brings them.
        remedy: String,
    },
    /// The library was built for another processor.
    #[error(
        "{} is built for {found}, this program for {needed}; take the ONNX Runtime build for {needed}",
        path.display()
    )]
    ForeignArchitecture {
        /// The file.
        path: PathBuf,
        /// The processor that the file names.
        found: String,
        /// The processor that this program runs on.
        needed: &'static str,
    },
    /// A sound library without ONNX Runtime's C API.
    #[error(
        "{} is a library, but no ONNX Runtime: it has no OrtGetApiBase and no table of its API was found in it",
        path.display()
    )]
    NotOnnxRuntime {
        /// The file.
        path: PathBuf,
    },
    /// The build is older than the lowest API that this program talks to.
    #[error(
        "{} is ONNX Runtime {found}, and 1.{minimum} or later is needed; `mpnet runtime install` fetches one that fits",
        path.display()
    )]
    TooOld {
        /// The file.
        path: PathBuf,
        /// The version that the file names.
        found: String,
        /// The lowest usable minor version.
        minimum: u32,
    },
    /// The build has no training API and one is needed.
    #[error(
        "ONNX Runtime {version} in {} is built without the training API; use a training build (`mpnet runtime install`) or --engine session",
        path.display()
    )]
    NoTrainingApi {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// The system's loader refused the library.
    #[error("the system cannot load {}: {reason}", path.display())]
    Refused {
        /// The file.
        path: PathBuf,
        /// The loader's message, for instance the library that it misses.
        reason: String,
    },
    /// The version that the file holds is not the one that the loaded API tells.
    #[error(
        "{} tells to be ONNX Runtime {loaded} when loaded, but holds the version {expected}; it was not recognised rightly: use another build",
        path.display()
    )]
    VersionMismatch {
        /// The file.
        path: PathBuf,
        /// The version found in the file.
        expected: String,
        /// What GetVersionString told.
        loaded: String,
    },
    /// Another build is in use in this process already.
    #[error(
        "ONNX Runtime is already loaded from {}, so {} cannot be loaded in the same process",
        loaded.display(),
        requested.display()
    )]
    AlreadyLoaded {
        /// The build in use.
        loaded: PathBuf,
        /// The one asked for.
        requested: PathBuf,
    },
    /// ONNX Runtime could not set up its environment.
    #[error("ONNX Runtime from {} did not start", path.display())]
    Environment {
        /// The file.
        path: PathBuf,
        /// ONNX Runtime's message.
        source: ort::Error,
    },
    /// There is no pip and no uv.
    #[error(
        "neither pip nor uv was found, one of which is needed once to fetch {requirement}; install one of them, or give an ONNX Runtime library or wheel with --ort"
    )]
    NoClient {
        /// The package with its version.
        requirement: String,
    },
    /// No client could fetch the package.
    #[error(
        "{requirement} could not be fetched: {complaints}; check the network and the client's mirror and proxy settings, or give an ONNX Runtime library or wheel with --ort"
    )]
    ClientsFailed {
        /// The package with its version.
        requirement: String,
        /// What the clients said.
        complaints: String,
    },
    /// This program knows no build with the provider for this kind of machine.
    #[error(
        "this program knows no ONNX Runtime build with the provider '{provider}' for {os} on {arch}; get {package} there yourself and give its library or wheel with --ort"
    )]
    NothingPublished {
        /// The provider.
        provider: Provider,
        /// The package that has it where there is one.
        package: &'static str,
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
    },
    /// This program knows no plug-in of that name for this kind of machine.
    #[error(
        "the plug-in {package} is not published for {os} on {arch}; another one is named by its path: --provider plugin:PATH"
    )]
    NoPlugin {
        /// The package.
        package: &'static str,
        /// The operating system.
        os: &'static str,
        /// The processor.
        arch: &'static str,
    },
    /// The cache is empty and nothing was to be fetched.
    #[error(
        "no ONNX Runtime is installed in {}; `mpnet runtime install` fetches one, --ort PATH uses another",
        cache.display()
    )]
    NotInstalled {
        /// The cache folder.
        cache: PathBuf,
    },
    /// A file came shorter than it must be.
    #[error(
        "{} has {found} of {expected} bytes: the download was cut short; try again",
        path.display()
    )]
    Truncated {
        /// The file.
        path: PathBuf,
        /// Bytes that it must have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// A file came with other contents than it must have.
    #[error(
        "{} has the SHA-256 {found} instead of {expected}, so it is not the published file; check the package mirror in use, then try again",
        path.display()
    )]
    WrongHash {
        /// The file.
        path: PathBuf,
        /// The pinned hash.
        expected: String,
        /// The file's own hash.
        found: String,
    },
    /// A wheel is no zip file, or a damaged one.
    #[error("the wheel {} is damaged ({reason}); fetch it again", path.display())]
    DamagedWheel {
        /// The wheel.
        path: PathBuf,
        /// What the reader found.
        reason: String,
    },
    /// A sound wheel of something else.
    #[error("the wheel {} holds no ONNX Runtime library; give a wheel of an onnxruntime package", path.display())]
    WheelWithoutLibrary {
        /// The wheel.
        path: PathBuf,
    },
}

/// `Result` of this module.
pub type Result<T, E = LibraryError> = std::result::Result<T, E>;

/// Turns an I/O error into one that names the act and the path.
pub(super) fn io(
    doing: &'static str,
    path: impl Into<PathBuf>,
) -> impl FnOnce(std::io::Error) -> LibraryError {
    let path = path.into();
    move |source| LibraryError::Io {
        doing,
        path,
        source,
    }
}
