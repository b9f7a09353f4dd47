//! Panels in bf16: 32 rows or columns, in tiles of 16 by 32 elements of the sum.

mod pack;
mod tiles;

use std::ops::Range;

use super::super::product::Matrix;
use super::{Layout, Side};
use crate::processor::Bf16Instructions;
pub(super) use pack::transposed;
use pack::{STEP, STEP_DEPTH, pack};
use tiles::Tiles;

/// The layout for those instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels(pub Bf16Instructions);

impl Layout for Panels {
    type Kernel = Tiles;
    const ROWS: usize = pack::PANEL;
    const COLUMNS: usize = pack::PANEL;
    const DEPTH: usize = 512;

    fn words(_: Side, depth: usize) -> usize {
        depth.div_ceil(STEP_DEPTH) * STEP
    }

    unsafe fn pack(
        self,
        side: Side,
        operand: Matrix,
        count: usize,
        depth: usize,
        range: Range<usize>,
        panels: *mut u32,
    ) {
        // SAFETY: the caller's promise.
        unsafe { pack(side, operand, count, depth, range, panels) }
    }

    unsafe fn kernel(self) -> Tiles {
        // SAFETY: the caller's promise.
        unsafe { Tiles::new(self.0) }
    }
}
