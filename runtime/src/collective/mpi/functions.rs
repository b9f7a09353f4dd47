//! The functions of a library that are used.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;

use libloading::Library;

use super::conventions::{Constants, MPICH, STANDARD, open_mpi};
use crate::collective::{CollectiveError, Result};

/// Longer than any library's `MPI_MAX_LIBRARY_VERSION_STRING` and `MPI_MAX_ERROR_STRING`.
const TEXT: usize = 16_384;

type Handle = usize;

/// MPI's functions, with handles as whole registers (see [`super::conventions`]).
pub(super) struct Functions {
    pub(super) init_thread:
        unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int,
    pub(super) finalize: unsafe extern "C" fn() -> c_int,
    pub(super) comm_rank: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    pub(super) comm_size: unsafe extern "C" fn(Handle, *mut c_int) -> c_int,
    pub(super) comm_set_errhandler: unsafe extern "C" fn(Handle, Handle) -> c_int,
    pub(super) allreduce:
        unsafe extern "C" fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle) -> c_int,
    pub(super) reduce_scatter_block:
        unsafe extern "C" fn(*const c_void, *mut c_void, c_int, Handle, Handle, Handle) -> c_int,
    pub(super) allgather: unsafe extern "C" fn(
        *const c_void,
        c_int,
        Handle,
        *mut c_void,
        c_int,
        Handle,
        Handle,
    ) -> c_int,
    pub(super) bcast: unsafe extern "C" fn(*mut c_void, c_int, Handle, c_int, Handle) -> c_int,
    pub(super) barrier: unsafe extern "C" fn(Handle) -> c_int,
    error_string: unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> c_int,
    library_version: unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int,
    /// Never unloaded: MPI's threads may outlive what it was set up for.
    _library: std::mem::ManuallyDrop<Library>,
}

/// Loads the library at `path` and finds out which interface it has.
///
/// # Errors
/// It cannot be loaded, or is no MPI.
pub(super) fn load(path: &Path) -> Result<(Functions, Constants)> {
    let failed = |error: libloading::Error| CollectiveError::Library {
        library: "MPI",
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let library = open(path).map_err(failed)?;
    // SAFETY: these are the names of variables, of which the address alone is taken.
    let address = |name: &str| unsafe {
        let symbol = library.get::<*mut c_void>(name)?;
        Ok::<usize, libloading::Error>(*symbol as usize)
    };
    let constants = match open_mpi(address) {
        _ if is_standard(path) => STANDARD,
        Ok(constants) => constants,
        Err(_) => MPICH,
    };
    // SAFETY: the signatures are those of the MPI standard, with handles as `conventions` says.
    let functions = unsafe {
        Functions {
            init_thread: *library.get("MPI_Init_thread").map_err(failed)?,
            finalize: *library.get("MPI_Finalize").map_err(failed)?,
            comm_rank: *library.get("MPI_Comm_rank").map_err(failed)?,
            comm_size: *library.get("MPI_Comm_size").map_err(failed)?,
            comm_set_errhandler: *library.get("MPI_Comm_set_errhandler").map_err(failed)?,
            allreduce: *library.get("MPI_Allreduce").map_err(failed)?,
            reduce_scatter_block: *library.get("MPI_Reduce_scatter_block").map_err(failed)?,
            allgather: *library.get("MPI_Allgather").map_err(failed)?,
            bcast: *library.get("MPI_Bcast").map_err(failed)?,
            barrier: *library.get("MPI_Barrier").map_err(failed)?,
            error_string: *library.get("MPI_Error_string").map_err(failed)?,
            library_version: *library.get("MPI_Get_library_version").map_err(failed)?,
            _library: std::mem::ManuallyDrop::new(library),
        }
    };
    Ok((functions, constants))
}

/// Libraries of the standard interface may have the names of the other ones, too: the file's name decides.
fn is_standard(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.starts_with("libmpi_abi.")
}

#[cfg(unix)]
fn open(path: &Path) -> Result<Library, libloading::Error> {
    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_LAZY};
    // SAFETY: an MPI library does no more than set itself up when loaded. Its plug-ins look for its names.
    unsafe { Library::open(Some(path), RTLD_LAZY | RTLD_GLOBAL) }.map(Into::into)
}

#[cfg(not(unix))]
fn open(path: &Path) -> Result<Library, libloading::Error> {
    // SAFETY: an MPI library does no more than set itself up when loaded.
    unsafe { Library::new(path) }
}

impl Functions {
    /// What the library calls itself, in short.
    pub(super) fn version(&self) -> String {
        let mut text = vec![0u8; TEXT];
        let mut length = 0;
        // SAFETY: there is more room than the longest name has.
        let code = unsafe { (self.library_version)(text.as_mut_ptr().cast(), &mut length) };
        let text = match code {
            0 => words(&text),
            _ => String::new(),
        };
        short(&text)
    }

    /// What the library says of an error.
    pub(super) fn error_string(&self, code: c_int) -> String {
        let mut text = vec![0u8; TEXT];
        let mut length = 0;
        // SAFETY: there is more room than the longest message has.
        match unsafe { (self.error_string)(code, text.as_mut_ptr().cast(), &mut length) } {
            0 => words(&text).replace('\n', "; "),
            _ => "nothing".to_owned(),
        }
    }
}

/// The text before the NUL.
fn words(text: &[u8]) -> String {
    CStr::from_bytes_until_nul(text)
        .map(|text| text.to_string_lossy().trim().to_owned())
        .unwrap_or_default()
}

/// "MPICH 5.0.2" of a text of many lines that begins with "MPICH Version:      5.0.2".
fn short(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let line = line.split(", package:").next().unwrap_or(line);
    let words = line.replace("Version:", " ");
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn versions_are_short() {
        assert_eq!(
            short("MPICH Version:      5.0.2\nMPICH Release date: x"),
            "MPICH 5.0.2"
        );
        assert_eq!(
            short("Open MPI v5.0.11, package: Open MPI runner@host Distribution"),
            "Open MPI v5.0.11"
        );
    }
}
