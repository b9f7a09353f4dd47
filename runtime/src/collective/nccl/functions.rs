//! The functions of NCCL and RCCL that are used; both have them under the same names.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem::{ManuallyDrop, size_of};
use std::path::Path;

use libloading::Library;

use super::Vendor;
use crate::collective::{CollectiveError, Result};

/// `ncclSuccess`.
pub(super) const SUCCESS: c_int = 0;
/// `ncclInProgress`: told, not done.
pub(super) const IN_PROGRESS: c_int = 7;
/// Bytes of an id.
pub(super) const ID_BYTES: usize = 128;

/// `ncclComm_t`.
pub(super) type Communicator = *mut c_void;
/// `cudaStream_t` or `hipStream_t`.
type Stream = *mut c_void;

/// `ncclUniqueId`, by which ranks find each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub(super) struct UniqueId(pub(super) [u8; ID_BYTES]);

/// `ncclConfig_t` as of version 2.14: what came later keeps its default.
#[repr(C)]
pub(super) struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
}

impl Config {
    pub(super) fn not_blocking() -> Self {
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21_400,
            blocking: 0,
        }
    }
}

/// Input, output, elements, their type, an operation or a root, and where it is done.
type CollectiveFn = unsafe extern "C" fn(
    *const c_void,
    *mut c_void,
    usize,
    c_int,
    c_int,
    Communicator,
    Stream,
) -> c_int;

/// What was looked up.
pub(super) struct Functions {
    vendor: Vendor,
    get_version: unsafe extern "C" fn(*mut c_int) -> c_int,
    pub(super) get_unique_id: unsafe extern "C" fn(*mut UniqueId) -> c_int,
    pub(super) comm_init_rank_config:
        unsafe extern "C" fn(*mut Communicator, c_int, UniqueId, c_int, *mut Config) -> c_int,
    pub(super) comm_get_async_error: unsafe extern "C" fn(Communicator, *mut c_int) -> c_int,
    pub(super) comm_abort: unsafe extern "C" fn(Communicator) -> c_int,
    pub(super) comm_finalize: unsafe extern "C" fn(Communicator) -> c_int,
    pub(super) comm_destroy: unsafe extern "C" fn(Communicator) -> c_int,
    get_error_string: unsafe extern "C" fn(c_int) -> *const c_char,
    get_last_error: unsafe extern "C" fn(Communicator) -> *const c_char,
    pub(super) all_reduce: CollectiveFn,
    pub(super) reduce_scatter: CollectiveFn,
    pub(super) all_gather: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        c_int,
        Communicator,
        Stream,
    ) -> c_int,
    pub(super) broadcast: CollectiveFn,
    pub(super) group_start: unsafe extern "C" fn() -> c_int,
    pub(super) group_end: unsafe extern "C" fn() -> c_int,
    /// Never unloaded: its threads may outlive the communicator.
    _library: ManuallyDrop<Library>,
}

impl Functions {
    /// Loads the library at `path`.
    ///
    /// # Errors
    /// It cannot be loaded, or lacks a function: before version 2.14 there was no communicator that does not block.
    pub(super) fn load(vendor: Vendor, path: &Path) -> Result<Self> {
        let failed = |error: libloading::Error| CollectiveError::Library {
            library: vendor.library(),
            path: path.to_owned(),
            reason: error.to_string(),
        };
        // SAFETY: the library does no more than set itself up when loaded.
        let library = unsafe { Library::new(path) }.map_err(failed)?;
        // SAFETY: the signatures are those of `nccl.h`, the same from 2.14 on.
        unsafe {
            Ok(Self {
                vendor,
                get_version: *library.get("ncclGetVersion").map_err(failed)?,
                get_unique_id: *library.get("ncclGetUniqueId").map_err(failed)?,
                comm_init_rank_config: *library.get("ncclCommInitRankConfig").map_err(failed)?,
                comm_get_async_error: *library.get("ncclCommGetAsyncError").map_err(failed)?,
                comm_abort: *library.get("ncclCommAbort").map_err(failed)?,
                comm_finalize: *library.get("ncclCommFinalize").map_err(failed)?,
                comm_destroy: *library.get("ncclCommDestroy").map_err(failed)?,
                get_error_string: *library.get("ncclGetErrorString").map_err(failed)?,
                get_last_error: *library.get("ncclGetLastError").map_err(failed)?,
                all_reduce: *library.get("ncclAllReduce").map_err(failed)?,
                reduce_scatter: *library.get("ncclReduceScatter").map_err(failed)?,
                all_gather: *library.get("ncclAllGather").map_err(failed)?,
                broadcast: *library.get("ncclBroadcast").map_err(failed)?,
                group_start: *library.get("ncclGroupStart").map_err(failed)?,
                group_end: *library.get("ncclGroupEnd").map_err(failed)?,
                _library: ManuallyDrop::new(library),
            })
        }
    }

    /// "2.31.2".
    ///
    /// # Errors
    /// The library refuses.
    pub(super) fn version(&self) -> Result<String> {
        let mut version = 0;
        // SAFETY: the number is live.
        match unsafe { (self.get_version)(&mut version) } {
            SUCCESS => Ok(readable(version)),
            code => Err(self.error("GetVersion", code, std::ptr::null_mut())),
        }
    }

    /// A new id, which one rank makes for all.
    ///
    /// # Errors
    /// The library finds no network.
    pub(super) fn unique_id(&self) -> Result<UniqueId> {
        let mut id = UniqueId([0; ID_BYTES]);
        // SAFETY: there is room for an id.
        match unsafe { (self.get_unique_id)(&mut id) } {
            SUCCESS => Ok(id),
            code => Err(self.error("GetUniqueId", code, std::ptr::null_mut())),
        }
    }

    /// What the library says of an error.
    pub(super) fn error(
        &self,
        function: &'static str,
        code: c_int,
        communicator: Communicator,
    ) -> CollectiveError {
        // SAFETY: the texts are the library's, and end with a NUL; a communicator may be missing.
        let [what, last] = unsafe {
            [
                (self.get_error_string)(code),
                (self.get_last_error)(communicator),
            ]
            .map(|text| match text.is_null() {
                true => String::new(),
                false => CStr::from_ptr(text).to_string_lossy().trim().to_owned(),
            })
        };
        let message = match last.is_empty() {
            true => what,
            false => format!("{what}: {last}").replace('\n', "; "),
        };
        CollectiveError::Call {
            library: self.vendor.library(),
            function,
            message,
            code,
        }
    }
}

/// A version as people write it: its digits were packed more tightly before 2.9.
fn readable(version: c_int) -> String {
    let (major, rest) = match version {
        ..10_000 => (version / 1000, version % 1000),
        _ => (version / 10_000, version % 10_000),
    };
    format!("{major}.{}.{}", rest / 100, rest % 100)
}

#[cfg(test)]
mod tests {
    use super::readable;

    #[test]
    fn versions_are_readable() {
        assert_eq!(readable(23_102), "2.31.2");
        assert_eq!(readable(21_403), "2.14.3");
        assert_eq!(readable(2_708), "2.7.8");
    }
}
