//! A product in blocks: both operands are packed into panels, the right one so many columns at a time, and then
//! multiplied panel by panel.

use std::ops::Range;

use super::scratch::Scratch;
use super::{Kernel as _, Layout, Product, Side, Sums, WIDEST};

/// Panels that are packed at a time.
const PACKED: usize = 4;
/// Rows and columns of a block of the result, about: with its parts of the operands it stays in the second cache.
const BLOCK: usize = 256;
/// Words of the right operand that are packed before they are multiplied.
const RIGHT: usize = 4 << 20;

impl Product {
    /// [`Product::run`].
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn compute<L: Layout, E>(
        &self,
        layout: L,
        share: impl Fn(usize, &(dyn Fn(usize) + Sync + Send)) -> Result<(), E>,
    ) -> Result<(), E> {
        let [m, k, n] = self.sizes;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let words = [Side::Left, Side::Right].map(|side| L::words(side, k));
        let (rows, columns) = (m.div_ceil(L::ROWS), n.div_ceil(L::COLUMNS));
        let wide = (RIGHT / words[1].max(1)).clamp(1, columns);
        let mut left = Scratch::take(rows * words[0]);
        let mut right = Scratch::take(wide * words[1]);
        let packed = [&mut left, &mut right].map(|scratch| Packed(scratch.start()));
        let (high, broad) = ((BLOCK / L::ROWS).max(1), (BLOCK / L::COLUMNS).max(1));
        for first in (0..columns).step_by(wide) {
            let last = (first + wide).min(columns);
            let of_left = match first {
                0 => rows.div_ceil(PACKED),
                _ => 0,
            };
            let of_right = (last - first).div_ceil(PACKED);
            share(of_left + of_right, &|index| {
                // SAFETY: the caller's promise; every panel is packed once.
                unsafe {
                    if index < of_left {
                        let range = index * PACKED..((index + 1) * PACKED).min(rows);
                        let place = packed[0].panel(range.start, words[0]);
                        layout.pack(Side::Left, self.a, m, k, range, place);
                    } else {
                        let start = first + (index - of_left) * PACKED;
                        let range = start..(start + PACKED).min(last);
                        let place = packed[1].panel(start - first, words[1]);
                        layout.pack(Side::Right, self.b.transposed(), n, k, range, place);
                    }
                }
            })?;
            let (down, across) = (rows.div_ceil(high), (last - first).div_ceil(broad));
            share(down * across, &|index| {
                let (row, column) = (index % down * high, first + index / down * broad);
                let rows = row..(row + high).min(rows);
                let columns = column..(column + broad).min(last);
                // SAFETY: the caller's promise; every block of the result is computed once.
                unsafe { self.block(layout, packed, words, rows, (columns, first)) };
            })?;
        }
        Ok(())
    }

    /// The block of the result in those panels of rows and of columns, of which `packed` has those from a first one on.
    ///
    /// # Safety
    /// As [`Product::run`]; the panels are packed, and nobody else writes to the block.
    unsafe fn block<L: Layout>(
        &self,
        layout: L,
        packed: [Packed; 2],
        words: [usize; 2],
        rows: Range<usize>,
        (columns, first): (Range<usize>, usize),
    ) {
        let [m, k, n] = self.sizes;
        let mut sums = Sums([[0.0; WIDEST]; WIDEST]);
        // SAFETY: the caller's promise.
        unsafe {
            let kernel = layout.kernel();
            for start in (0..k.max(1)).step_by(L::DEPTH) {
                let depth = (k - start).min(L::DEPTH);
                let skipped = [Side::Left, Side::Right].map(|side| L::words(side, start));
                for column in columns.clone() {
                    let right = packed[1].panel(column - first, words[1]).add(skipped[1]);
                    let width = (n - column * L::COLUMNS).min(L::COLUMNS);
                    for row in rows.clone() {
                        let left = packed[0].panel(row, words[0]).add(skipped[0]);
                        if depth > 0 {
                            kernel.product(left, right, depth, &mut sums);
                        }
                        let at = [row * L::ROWS, column * L::COLUMNS];
                        let size = [(m - at[0]).min(L::ROWS), width];
                        self.store(at, size, start > 0, &sums);
                    }
                }
            }
        }
    }

    /// Brings sums to the part of the result that begins at a row and a column: `further` ones, or the first.
    ///
    /// # Safety
    /// As [`Product::block`].
    #[inline]
    unsafe fn store(&self, at: [usize; 2], size: [usize; 2], further: bool, sums: &Sums) {
        // SAFETY: the caller's promise.
        unsafe {
            let c = self.c.0.add(at[0] * self.c_row + at[1]);
            let added = match (further, self.added) {
                (true, _) => Some((c.cast_const(), self.c_row)),
                (false, Some(added)) => {
                    Some((added.start.add(at[0] * added.row + at[1]), added.row))
                }
                (false, None) => None,
            };
            let target = (c, self.c_row);
            #[cfg(target_arch = "x86_64")]
            {
                if is_x86_feature_detected!("avx512f") {
                    return wide::avx512(target, added, size, self.factor, sums);
                }
                if is_x86_feature_detected!("avx2") {
                    return wide::avx2(target, added, size, self.factor, sums);
                }
            }
            add_rows(target, added, size, self.factor, sums);
        }
    }
}

/// c ← factor · sums (+ added), in that many rows and columns; both may be the same memory.
///
/// # Safety
/// The elements lie in their tensors.
#[inline(always)]
unsafe fn add_rows(
    (c, c_row): (*mut f32, usize),
    added: Option<(*const f32, usize)>,
    [rows, columns]: [usize; 2],
    factor: f32,
    sums: &Sums,
) {
    for (row, sums) in sums.0.iter().enumerate().take(rows) {
        let mut result = sums.map(|sum| factor * sum);
        // SAFETY: the caller's promise. What is added is read before the row is written.
        unsafe {
            if let Some((added, added_row)) = added {
                let added = added.add(row * added_row);
                let mut before = [0.0f32; WIDEST];
                copy(added, before.as_mut_ptr(), columns);
                result.iter_mut().zip(before).for_each(|(x, y)| *x += y);
            }
            copy(result.as_ptr(), c.add(row * c_row), columns);
        }
    }
}

/// Copies so many elements, mostly all of a panel.
///
/// # Safety
/// Both have them, and not in common.
#[inline(always)]
unsafe fn copy(from: *const f32, to: *mut f32, count: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match count {
            WIDEST => to.copy_from_nonoverlapping(from, WIDEST),
            _ => to.copy_from_nonoverlapping(from, count),
        }
    }
}

/// [`add_rows`] in wider vectors.
#[cfg(target_arch = "x86_64")]
mod wide {
    use super::{Sums, add_rows};

    macro_rules! compiled {
        ($name:ident, $features:literal) => {
            /// # Safety
            /// As [`add_rows`], on a processor with what it is compiled for.
            #[target_feature(enable = $features)]
            pub(super) unsafe fn $name(
                c: (*mut f32, usize),
                added: Option<(*const f32, usize)>,
                size: [usize; 2],
                factor: f32,
                sums: &Sums,
            ) {
                // SAFETY: the caller's promise.
                unsafe { add_rows(c, added, size, factor, sums) };
            }
        };
    }

    compiled!(avx512, "avx512f");
    compiled!(avx2, "avx2");
}

/// Packed panels that threads read, and write different ones of.
#[derive(Debug, Clone, Copy)]
struct Packed(*mut u32);

// SAFETY: every panel is written by one thread, before others read it.
unsafe impl Send for Packed {}
// SAFETY: as above.
unsafe impl Sync for Packed {}

impl Packed {
    /// # Safety
    /// There is a panel of that index.
    unsafe fn panel(self, index: usize, words: usize) -> *mut u32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(index * words) }
    }
}
