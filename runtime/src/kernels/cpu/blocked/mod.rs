//! Matrix products of f32 tensors in blocks of fixed sizes, in f32 or with operands rounded to bf16; sums are f32.
//!
//! The sum of an element of the result runs over blocks of fixed length in the order of its terms, so that its bits
//! depend neither on how the work is shared out nor on the number of threads.

#[cfg(target_arch = "x86_64")]
mod bf16;
mod driver;
mod f32;
mod matmul;
mod scratch;

pub(super) use matmul::MatMul;

use super::memory::Shared;
use super::product::Matrix;
use crate::processor::{Bf16Instructions, F32Instructions};

/// What the elements are multiplied in, and by which instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arithmetic {
    F32(F32Instructions),
    /// Operands are rounded to nearest, ties to even.
    Bf16(Bf16Instructions),
}

/// c ← factor · a · b (+ added), for a of [m, k], b of [k, n] and c of [m, n].
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    /// m, k and n.
    pub sizes: [usize; 3],
    pub factor: f32,
    pub a: Matrix,
    pub b: Matrix,
    /// Rows of n elements, which may be those of c.
    pub added: Option<Matrix>,
    pub c: Shared,
    /// Elements between two rows of c.
    pub c_row: usize,
}

impl Product {
    /// Runs it, the work shared out by `share`, which calls what it is given with every number below the one given.
    ///
    /// # Safety
    /// The processor has the instructions; all elements lie in their tensors, and those of c in no operand.
    pub(super) unsafe fn run<E>(
        &self,
        arithmetic: Arithmetic,
        share: impl Fn(usize, &(dyn Fn(usize) + Sync + Send)) -> Result<(), E>,
    ) -> Result<(), E> {
        // SAFETY: the caller's promise.
        unsafe {
            match arithmetic {
                Arithmetic::F32(instructions) => self.compute(f32::Panels(instructions), share),
                #[cfg(target_arch = "x86_64")]
                Arithmetic::Bf16(instructions) => self.compute(bf16::Panels(instructions), share),
                #[cfg(not(target_arch = "x86_64"))]
                Arithmetic::Bf16(instructions) => match instructions {},
            }
        }
    }
}

/// Which operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// Most rows and columns of a product of two panels.
const WIDEST: usize = 32;

/// The sums of two panels, row by row.
#[repr(C, align(64))]
struct Sums([[f32; WIDEST]; WIDEST]);

/// How operands are laid out for a kernel: in panels, some rows of the left operand or columns of the right one, the
/// elements of the sum one behind the other. Its memory is words of 32 bits at multiples of 64 bytes.
trait Layout: Copy + Send + Sync {
    /// Multiplies panels; made by each thread for itself.
    type Kernel: Kernel;
    /// Rows of a panel of the left operand.
    const ROWS: usize;
    /// Columns of a panel of the right operand; one of them in one row of [`Sums`].
    const COLUMNS: usize;
    /// Elements of the sum that are added up before they come to the result: panels of so many stay in the first
    /// cache.
    const DEPTH: usize;

    /// Words of a panel with so many elements of the sum; where an element's begin that is a multiple of `DEPTH`.
    fn words(side: Side, depth: usize) -> usize;

    /// Packs the panels of that range, of an operand with `count` rows (columns, if it is the right one) of `depth`
    /// elements; `operand` has them as its rows. `panels` holds the range's panels one behind the other. What the
    /// last one lacks is zeros.
    ///
    /// # Safety
    /// The processor has the instructions; the elements lie in the operand's tensor, and `panels` has room.
    unsafe fn pack(
        self,
        side: Side,
        operand: Matrix,
        count: usize,
        depth: usize,
        range: std::ops::Range<usize>,
        panels: *mut u32,
    );

    /// # Safety
    /// The processor has the instructions.
    unsafe fn kernel(self) -> Self::Kernel;
}

/// Multiplies two panels.
trait Kernel {
    /// Writes the sums over `depth` elements, at least one.
    ///
    /// # Safety
    /// Both panels have that many; this thread has made the kernel.
    unsafe fn product(&self, left: *const u32, right: *const u32, depth: usize, sums: &mut Sums);
}
