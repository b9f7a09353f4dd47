//! What names stand for in a library's binary interface.
//!
//! There are three: the one that MPI 5.0 has made standard (MPICH 5, Intel MPI 2021.15 and later, Open
//! MPI 6), in which handles are pointers of fixed values; Open MPI's own, in which they are addresses
//! of the library's variables; and that of MPICH and what follows it (Intel, Cray, MVAPICH), in which
//! they are numbers of 32 bits. Passed as whole registers, all three fit one set of signatures: a callee
//! that takes 32 bits does not look at the others.

use std::ffi::{c_int, c_void};

/// Handles and constants of one library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Constants {
    /// `MPI_COMM_WORLD`.
    pub(super) world: usize,
    /// `MPI_ERRORS_RETURN`.
    pub(super) errors_return: usize,
    /// `MPI_SUM`.
    pub(super) sum: usize,
    /// `MPI_MAX`.
    pub(super) max: usize,
    pub(super) types: Types,
    /// `MPI_IN_PLACE`.
    pub(super) in_place: usize,
    /// `MPI_THREAD_SERIALIZED`.
    pub(super) thread_serialized: c_int,
}

/// Handles of element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Types {
    pub(super) float: usize,
    pub(super) double: usize,
    pub(super) int32: usize,
    pub(super) int64: usize,
    pub(super) uint8: usize,
    pub(super) uint32: usize,
    pub(super) uint64: usize,
}

impl Constants {
    pub(super) fn in_place(&self) -> *mut c_void {
        self.in_place as *mut c_void
    }
}

/// MPI 5.0, chapter 20 and appendix A.
pub(super) const STANDARD: Constants = Constants {
    world: 0x101,
    errors_return: 0x143,
    sum: 0x21,
    max: 0x23,
    types: Types {
        float: 0x210,
        double: 0x214,
        int32: 0x250,
        int64: 0x258,
        uint8: 0x241,
        uint32: 0x251,
        uint64: 0x259,
    },
    in_place: 1,
    thread_serialized: 2048,
};

/// MPICH's, unchanged since version 3.1: the ABI that it shares with Intel, Cray and MVAPICH.
pub(super) const MPICH: Constants = Constants {
    world: 0x4400_0000,
    errors_return: 0x5400_0001,
    sum: 0x5800_0003,
    max: 0x5800_0001,
    types: Types {
        float: 0x4c00_040a,
        double: 0x4c00_080b,
        int32: 0x4c00_0439,
        int64: 0x4c00_083a,
        uint8: 0x4c00_013b,
        uint32: 0x4c00_043d,
        uint64: 0x4c00_083e,
    },
    in_place: usize::MAX,
    thread_serialized: 2,
};

/// Open MPI's, where `address` finds a variable of the library.
pub(super) fn open_mpi<E>(address: impl Fn(&str) -> Result<usize, E>) -> Result<Constants, E> {
    Ok(Constants {
        world: address("ompi_mpi_comm_world")?,
        errors_return: address("ompi_mpi_errors_return")?,
        sum: address("ompi_mpi_op_sum")?,
        max: address("ompi_mpi_op_max")?,
        types: Types {
            float: address("ompi_mpi_float")?,
            double: address("ompi_mpi_double")?,
            int32: address("ompi_mpi_int32_t")?,
            int64: address("ompi_mpi_int64_t")?,
            uint8: address("ompi_mpi_uint8_t")?,
            uint32: address("ompi_mpi_uint32_t")?,
            uint64: address("ompi_mpi_uint64_t")?,
        },
        in_place: 1,
        thread_serialized: 2,
    })
}
