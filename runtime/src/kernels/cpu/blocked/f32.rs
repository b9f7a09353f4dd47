//! Panels in f32: 12 rows or 32 columns, whose products fill the registers of AVX-512.

use std::ops::Range;

use super::super::product::Matrix;
use super::{Kernel, Layout, Side, Sums, WIDEST};
use crate::processor::F32Instructions;

const ROWS: usize = 12;
const COLUMNS: usize = WIDEST;

/// The layout for those instructions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panels(pub F32Instructions);

impl Layout for Panels {
    type Kernel = Self;
    const ROWS: usize = ROWS;
    const COLUMNS: usize = COLUMNS;
    const DEPTH: usize = 256;

    fn words(side: Side, depth: usize) -> usize {
        // At multiples of 64 bytes.
        (depth * lines(side)).next_multiple_of(16)
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
        let (lines, words) = (lines(side), Self::words(side, depth));
        for (index, panel) in range.clone().enumerate() {
            let place = panels.wrapping_add(index * words).cast::<f32>();
            let part = Part {
                operand: Matrix {
                    start: operand.start.wrapping_add(panel * lines * operand.row),
                    ..operand
                },
                count: count.saturating_sub(panel * lines).min(lines),
            };
            // SAFETY: the caller's promise.
            unsafe {
                match side {
                    Side::Left => part.pack::<ROWS>(self.0, depth, place),
                    Side::Right => part.pack::<COLUMNS>(self.0, depth, place),
                }
            }
        }
    }

    unsafe fn kernel(self) -> Self {
        self
    }
}

/// Rows or columns of a panel.
fn lines(side: Side) -> usize {
    match side {
        Side::Left => ROWS,
        Side::Right => COLUMNS,
    }
}

/// The lines of one panel.
struct Part {
    operand: Matrix,
    count: usize,
}

impl Part {
    /// Writes them, `LINES` elements for each of the sum.
    ///
    /// # Safety
    /// As [`Layout::pack`].
    unsafe fn pack<const LINES: usize>(
        &self,
        instructions: F32Instructions,
        depth: usize,
        place: *mut f32,
    ) {
        let Matrix { start, row, column } = self.operand;
        let mut done = 0;
        // SAFETY: the caller's promise: elements of `count` lines are read, whole lines written.
        unsafe {
            if row == 1 && self.count == LINES {
                for i in 0..depth {
                    let line = place.add(i * LINES);
                    line.copy_from_nonoverlapping(start.add(i * column), LINES);
                }
                return;
            }
            #[cfg(target_arch = "x86_64")]
            if instructions == F32Instructions::Avx512 && column == 1 && self.count == LINES {
                done = avx512::transpose::<LINES>(start, row, depth, place);
            }
            #[cfg(not(target_arch = "x86_64"))]
            let _ = instructions;
            for i in done..depth {
                let mut line = [0.0f32; LINES];
                for (j, element) in line.iter_mut().enumerate().take(self.count) {
                    *element = *start.add(j * row + i * column);
                }
                place.add(i * LINES).cast::<[f32; LINES]>().write(line);
            }
        }
    }
}

impl Kernel for Panels {
    unsafe fn product(&self, left: *const u32, right: *const u32, depth: usize, sums: &mut Sums) {
        let (left, right) = (left.cast::<f32>(), right.cast::<f32>());
        // SAFETY: the caller's promise.
        unsafe {
            match self.0 {
                #[cfg(target_arch = "x86_64")]
                F32Instructions::Avx512 => avx512::product(left, right, depth, sums),
                #[cfg(target_arch = "x86_64")]
                F32Instructions::Avx2 => avx2::product(left, right, depth, sums),
                F32Instructions::Plain => plain(left, right, depth, sums),
            }
        }
    }
}

/// # Safety
/// As [`Kernel::product`].
unsafe fn plain(left: *const f32, right: *const f32, depth: usize, sums: &mut Sums) {
    /// Columns that are added up at a time.
    const SOME: usize = 8;
    for column in (0..COLUMNS).step_by(SOME) {
        let mut rows = [[0.0f32; SOME]; ROWS];
        for i in 0..depth {
            // SAFETY: the caller's promise.
            let (left, right) = unsafe {
                (
                    &*left.add(i * ROWS).cast::<[f32; ROWS]>(),
                    &*right.add(i * COLUMNS + column).cast::<[f32; SOME]>(),
                )
            };
            for (sums, &x) in rows.iter_mut().zip(left) {
                for (sum, &y) in sums.iter_mut().zip(right) {
                    *sum = multiply_add(x, y, *sum);
                }
            }
        }
        for (sums, row) in sums.0.iter_mut().zip(rows) {
            sums[column..column + SOME].copy_from_slice(&row);
        }
    }
}

/// x · y + z, rounded once where every processor of the architecture can.
#[inline(always)]
fn multiply_add(x: f32, y: f32, z: f32) -> f32 {
    match cfg!(target_arch = "aarch64") {
        true => x.mul_add(y, z),
        false => x * y + z,
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use std::arch::x86_64::{
        _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_loadu_si512, _mm512_set1_ps, _mm512_setzero_ps,
        _mm512_setzero_si512, _mm512_store_ps, _mm512_storeu_si512,
    };

    use super::super::bf16::transposed;
    use super::{COLUMNS, ROWS, Sums};

    const VECTOR: usize = 16;

    /// # Safety
    /// As [`Kernel::product`](super::Kernel::product), on a processor with AVX-512.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn product(
        left: *const f32,
        right: *const f32,
        depth: usize,
        sums: &mut Sums,
    ) {
        let mut rows = [[_mm512_setzero_ps(); 2]; ROWS];
        for i in 0..depth {
            // SAFETY: the caller's promise.
            unsafe {
                let right = right.add(i * COLUMNS);
                let columns = [_mm512_loadu_ps(right), _mm512_loadu_ps(right.add(VECTOR))];
                for (j, sums) in rows.iter_mut().enumerate() {
                    let x = _mm512_set1_ps(*left.add(i * ROWS + j));
                    sums[0] = _mm512_fmadd_ps(x, columns[0], sums[0]);
                    sums[1] = _mm512_fmadd_ps(x, columns[1], sums[1]);
                }
            }
        }
        for (row, [low, high]) in sums.0.iter_mut().zip(rows) {
            // SAFETY: a row of the sums has 32 elements, at a multiple of 64 bytes.
            unsafe {
                _mm512_store_ps(row.as_mut_ptr(), low);
                _mm512_store_ps(row.as_mut_ptr().add(VECTOR), high);
            }
        }
    }

    /// Packs whole lines whose elements lie side by side, 16 of them at a time; returns how many it has packed.
    ///
    /// # Safety
    /// As [`Layout::pack`](super::Layout::pack), on a processor with AVX-512; all `LINES` lines are there.
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn transpose<const LINES: usize>(
        start: *const f32,
        row: usize,
        depth: usize,
        place: *mut f32,
    ) -> usize {
        // A vector of fewer lines than 16 goes over the beginning of the next, which is written later.
        let whole = match LINES.is_multiple_of(VECTOR) {
            true => depth / VECTOR * VECTOR,
            false => depth.saturating_sub(1) / VECTOR * VECTOR,
        };
        for i in (0..whole).step_by(VECTOR) {
            for first in (0..LINES).step_by(VECTOR) {
                let mut lines = [_mm512_setzero_si512(); VECTOR];
                // SAFETY: the caller's promise.
                unsafe {
                    for (j, line) in lines.iter_mut().enumerate().take(LINES - first) {
                        *line = _mm512_loadu_si512(start.add((first + j) * row + i).cast());
                    }
                    for (j, line) in transposed(lines).into_iter().enumerate() {
                        _mm512_storeu_si512(place.add((i + j) * LINES + first).cast(), line);
                    }
                }
            }
        }
        whole
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::{
        _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_set1_ps, _mm256_setzero_ps, _mm256_storeu_ps,
    };

    use super::{COLUMNS, ROWS, Sums};

    const VECTOR: usize = 8;
    /// Rows that are added up at a time, two vectors each: twelve of the sixteen registers.
    const SOME: usize = 6;

    /// # Safety
    /// As [`Kernel::product`](super::Kernel::product), on a processor with AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn product(
        left: *const f32,
        right: *const f32,
        depth: usize,
        sums: &mut Sums,
    ) {
        for column in (0..COLUMNS).step_by(2 * VECTOR) {
            for first in (0..ROWS).step_by(SOME) {
                let mut rows = [[_mm256_setzero_ps(); 2]; SOME];
                // SAFETY: the caller's promise; the sums have all these rows and columns.
                unsafe {
                    for i in 0..depth {
                        let right = right.add(i * COLUMNS + column);
                        let columns = [_mm256_loadu_ps(right), _mm256_loadu_ps(right.add(VECTOR))];
                        for (j, sums) in rows.iter_mut().enumerate() {
                            let x = _mm256_set1_ps(*left.add(i * ROWS + first + j));
                            sums[0] = _mm256_fmadd_ps(x, columns[0], sums[0]);
                            sums[1] = _mm256_fmadd_ps(x, columns[1], sums[1]);
                        }
                    }
                    for (j, [low, high]) in rows.into_iter().enumerate() {
                        let row = sums.0[first + j].as_mut_ptr().add(column);
                        _mm256_storeu_ps(row, low);
                        _mm256_storeu_ps(row.add(VECTOR), high);
                    }
                }
            }
        }
    }
}
