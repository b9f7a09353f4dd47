//! Rounds operands to bf16, to nearest and ties to even, and lays them out for the instructions: panels of 32 rows
//! (of the left operand) or columns (of the right one), in tiles of 16 by 32 elements of the sum.
//!
//! An element of a tile is a pair of neighbours along the sum, 32 bits. A tile of the left operand has a row of 16
//! pairs for each of its rows; one of the right operand is the transpose of that. What an operand lacks to whole
//! tiles is zeros.

use std::arch::x86_64::{
    __m512i, __mmask16, _mm512_cvtne2ps_pbh, _mm512_loadu_si512, _mm512_maskz_loadu_ps,
    _mm512_permutexvar_epi16, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_i32x4,
    _mm512_store_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64,
};
use std::ops::Range;

use crate::kernels::cpu::blocked::Side;
use crate::kernels::cpu::product::Matrix;

/// Rows or columns of a panel: two tiles.
pub(super) const PANEL: usize = 32;
/// Elements of the sum in a tile.
pub(super) const STEP_DEPTH: usize = 32;
/// Rows or columns of a tile, and pairs in it along the sum.
const TILE: usize = 16;
/// Pairs of a step of a panel: both tiles.
pub(super) const STEP: usize = 2 * TILE * TILE;

/// [`Layout::pack`](super::Layout::pack).
///
/// # Safety
/// As there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
pub(super) unsafe fn pack(
    side: Side,
    operand: Matrix,
    count: usize,
    depth: usize,
    range: Range<usize>,
    panels: *mut u32,
) {
    let (steps, tiles) = (depth.div_ceil(STEP_DEPTH), 2 * range.len());
    let one = |step: usize, tile: usize| {
        let (first, row) = (step * STEP_DEPTH, range.start * PANEL + tile * TILE);
        let part = Part {
            // An empty part reads nothing.
            start: operand
                .start
                .wrapping_add(row * operand.row + first * operand.column),
            row: operand.row,
            column: operand.column,
            rows: count.saturating_sub(row).min(TILE),
            columns: (depth - first).min(STEP_DEPTH),
        };
        // SAFETY: the caller's promise.
        unsafe {
            let place = panels.add((tile / 2 * steps + step) * STEP + tile % 2 * TILE * TILE);
            part.pack(side, place);
        }
    };
    // Along what lies side by side.
    match operand.column {
        1 => (0..tiles).for_each(|tile| (0..steps).for_each(|step| one(step, tile))),
        _ => (0..steps).for_each(|step| (0..tiles).for_each(|tile| one(step, tile))),
    }
}

/// What one tile holds: at most 16 rows of at most 32 elements.
struct Part {
    start: *const f32,
    row: usize,
    column: usize,
    rows: usize,
    columns: usize,
}

impl Part {
    /// # Safety
    /// As [`pack`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn pack(&self, side: Side, place: *mut u32) {
        // SAFETY: the caller's promise.
        unsafe {
            let (by_row, pairs) = self.rounded();
            let pairs = match by_row == (side == Side::Left) {
                true => pairs,
                false => transposed(pairs),
            };
            for (i, line) in pairs.into_iter().enumerate() {
                _mm512_store_si512(place.add(i * TILE).cast(), line);
            }
        }
    }

    /// Its pairs and whether they come by row (a vector is a row's 16 pairs) or by column (a vector is a pair of
    /// 16 rows): as they lie in memory.
    ///
    /// # Safety
    /// As [`pack`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
    unsafe fn rounded(&self) -> (bool, [__m512i; TILE]) {
        let mut pairs = [_mm512_setzero_si512(); TILE];
        // SAFETY: only elements of the part are read, as the masks say.
        unsafe {
            if self.column == 1 {
                let low = mask(self.columns);
                let high = mask(self.columns.saturating_sub(TILE));
                for (i, line) in pairs.iter_mut().enumerate().take(self.rows) {
                    let row = self.start.add(i * self.row);
                    let upper = _mm512_maskz_loadu_ps(high, row.wrapping_add(TILE));
                    let lower = _mm512_maskz_loadu_ps(low, row);
                    *line = bits(_mm512_cvtne2ps_pbh(upper, lower));
                }
                return (true, pairs);
            }
            if self.row == 1 {
                let all = mask(self.rows);
                // Interleaves the lower and the upper half.
                let order = _mm512_loadu_si512(INTERLEAVED.as_ptr().cast());
                for (i, line) in pairs.iter_mut().enumerate().take(self.columns.div_ceil(2)) {
                    let column = self.start.add(2 * i * self.column);
                    let lower = _mm512_maskz_loadu_ps(all, column);
                    let upper = match 2 * i + 1 < self.columns {
                        true => _mm512_maskz_loadu_ps(all, column.add(self.column)),
                        false => _mm512_setzero_ps(),
                    };
                    let both = bits(_mm512_cvtne2ps_pbh(upper, lower));
                    *line = _mm512_permutexvar_epi16(order, both);
                }
                return (false, pairs);
            }
            let mut rows = [[0.0f32; STEP_DEPTH]; TILE];
            for (i, row) in rows.iter_mut().enumerate().take(self.rows) {
                for (j, element) in row.iter_mut().enumerate().take(self.columns) {
                    *element = *self.start.add(i * self.row + j * self.column);
                }
            }
            let gathered = Part {
                start: rows.as_ptr().cast(),
                row: STEP_DEPTH,
                column: 1,
                rows: TILE,
                columns: STEP_DEPTH,
            };
            gathered.rounded()
        }
    }
}

/// The places that a vector's 32 elements come from where two halves are interleaved.
const INTERLEAVED: [u16; 2 * TILE] = {
    let mut order = [0; 2 * TILE];
    let mut i = 0;
    while i < TILE {
        order[2 * i] = i as u16;
        order[2 * i + 1] = (TILE + i) as u16;
        i += 1;
    }
    order
};

/// The first `count` of 16 elements.
fn mask(count: usize) -> __mmask16 {
    match count {
        count if count < TILE => (1 << count) - 1,
        _ => u16::MAX,
    }
}

fn bits(x: std::arch::x86_64::__m512bh) -> __m512i {
    // SAFETY: both are 64 bytes, and any bits are a value of either.
    unsafe { std::mem::transmute(x) }
}

/// The transpose of 16 × 16 elements of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
pub(in super::super) fn transposed(rows: [__m512i; TILE]) -> [__m512i; TILE] {
    let zero = _mm512_setzero_si512();
    let mut a = [zero; TILE];
    let mut b = [zero; TILE];
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(rows[2 * i], rows[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(rows[2 * i], rows[2 * i + 1]);
    }
    // Four rows each: column j of every fourth, in its lanes of 128 bits.
    for i in 0..4 {
        b[4 * i] = _mm512_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm512_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm512_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm512_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for j in 0..4 {
        a[j] = _mm512_shuffle_i32x4::<0x88>(b[j], b[4 + j]);
        a[4 + j] = _mm512_shuffle_i32x4::<0xdd>(b[j], b[4 + j]);
        a[8 + j] = _mm512_shuffle_i32x4::<0x88>(b[8 + j], b[12 + j]);
        a[12 + j] = _mm512_shuffle_i32x4::<0xdd>(b[8 + j], b[12 + j]);
    }
    for j in 0..4 {
        b[j] = _mm512_shuffle_i32x4::<0x88>(a[j], a[8 + j]);
        b[8 + j] = _mm512_shuffle_i32x4::<0xdd>(a[j], a[8 + j]);
        b[4 + j] = _mm512_shuffle_i32x4::<0x88>(a[4 + j], a[12 + j]);
        b[12 + j] = _mm512_shuffle_i32x4::<0xdd>(a[4 + j], a[12 + j]);
    }
    b
}
