//! Products of small matrices, whose left factor is read where it lies and whose right one has rows side by side in
//! its columns: nothing is packed.

use matrixmultiply::sgemm;

/// A matrix that is read: its first element and the distances of rows and columns.
#[derive(Debug, Clone, Copy)]
pub(super) struct Matrix {
    pub start: *const f32,
    pub row: usize,
    pub column: usize,
}

// SAFETY: it is only read, and every use promises that its elements are there.
unsafe impl Send for Matrix {}
// SAFETY: as above.
unsafe impl Sync for Matrix {}

impl Matrix {
    /// Rows of `row` elements, from `start` on.
    pub(super) fn rows(start: *const f32, row: usize) -> Self {
        Self {
            start,
            row,
            column: 1,
        }
    }

    /// The transpose.
    pub(super) fn transposed(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }
}

/// c ← factor · a · b + keep · c, for [rows, inner, columns]; the columns of b and c lie side by side, their rows at
/// the distances given.
///
/// # Safety
/// All elements lie in their tensors, and those of c in none of the others.
pub(super) unsafe fn product(
    [m, k, n]: [usize; 3],
    factor: f32,
    a: Matrix,
    (b, b_row): (*const f32, usize),
    keep: bool,
    (c, c_row): (*mut f32, usize),
) {
    if m == 0 || n == 0 {
        return;
    }
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        let shared = avx::Factors {
            inner: k,
            factor,
            a_row: a.row,
            a_column: a.column,
            b_row,
            keep,
            c_row,
        };
        // SAFETY: the processor has the instructions; the elements are the caller's promise.
        unsafe { avx::product(m, n, a.start, b, c, &shared) };
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        sgemm(
            m,
            k,
            n,
            factor,
            a.start,
            a.row as isize,
            a.column as isize,
            b,
            b_row as isize,
            1,
            f32::from(u8::from(keep)),
            c,
            c_row as isize,
            1,
        );
    }
}

#[cfg(target_arch = "x86_64")]
mod avx {
    use std::arch::x86_64::{
        __m256i, _mm256_add_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
        _mm256_maskload_ps, _mm256_maskstore_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_setzero_ps,
        _mm256_storeu_ps,
    };

    /// Rows of a tile, each two vectors wide: twelve of the sixteen registers.
    const ROWS: usize = 6;
    const VECTOR: usize = 8;
    const COLUMNS: usize = 2 * VECTOR;

    /// What all tiles of a product share.
    pub(super) struct Factors {
        pub inner: usize,
        pub factor: f32,
        pub a_row: usize,
        pub a_column: usize,
        pub b_row: usize,
        pub keep: bool,
        pub c_row: usize,
    }

    /// # Safety
    /// The processor has AVX2 and FMA; all elements lie in their tensors.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn product(
        m: usize,
        n: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        shared: &Factors,
    ) {
        for column in (0..n).step_by(COLUMNS) {
            let width = (n - column).min(COLUMNS);
            for row in (0..m).step_by(ROWS) {
                // SAFETY: the tile's elements are some of the product's.
                unsafe {
                    let a = a.add(row * shared.a_row);
                    let b = b.add(column);
                    let c = c.add(row * shared.c_row + column);
                    match (m - row).min(ROWS) {
                        1 => tile::<1>(width, a, b, c, shared),
                        2 => tile::<2>(width, a, b, c, shared),
                        3 => tile::<3>(width, a, b, c, shared),
                        4 => tile::<4>(width, a, b, c, shared),
                        5 => tile::<5>(width, a, b, c, shared),
                        _ => tile::<ROWS>(width, a, b, c, shared),
                    }
                }
            }
        }
    }

    /// # Safety
    /// As [`product`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const R: usize>(
        width: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        shared: &Factors,
    ) {
        // SAFETY: whole vectors of b and c are touched only in whole tiles, else what the mask names.
        unsafe {
            if width == COLUMNS {
                tile_of::<R, true>(width, a, b, c, shared);
            } else {
                tile_of::<R, false>(width, a, b, c, shared);
            }
        }
    }

    /// # Safety
    /// As [`product`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile_of<const R: usize, const WHOLE: bool>(
        width: usize,
        a: *const f32,
        b: *const f32,
        c: *mut f32,
        shared: &Factors,
    ) {
        let masks = [mask(width), mask(width.saturating_sub(VECTOR))];
        let mut sums = [[_mm256_setzero_ps(); 2]; R];
        // SAFETY: the caller's promise; a masked load touches nothing outside its mask.
        unsafe {
            for k in 0..shared.inner {
                let row = b.add(k * shared.b_row);
                let right = match WHOLE {
                    true => [_mm256_loadu_ps(row), _mm256_loadu_ps(row.add(VECTOR))],
                    false => [
                        _mm256_maskload_ps(row, masks[0]),
                        _mm256_maskload_ps(row.wrapping_add(VECTOR), masks[1]),
                    ],
                };
                let column = a.add(k * shared.a_column);
                for (i, sums) in sums.iter_mut().enumerate() {
                    let left = _mm256_set1_ps(*column.add(i * shared.a_row));
                    sums[0] = _mm256_fmadd_ps(left, right[0], sums[0]);
                    sums[1] = _mm256_fmadd_ps(left, right[1], sums[1]);
                }
            }
            let factor = _mm256_set1_ps(shared.factor);
            for (i, sums) in sums.iter().enumerate() {
                for (half, sum) in sums.iter().enumerate() {
                    let target = c.wrapping_add(i * shared.c_row + half * VECTOR);
                    let mut value = _mm256_mul_ps(*sum, factor);
                    if shared.keep {
                        let old = match WHOLE {
                            true => _mm256_loadu_ps(target),
                            false => _mm256_maskload_ps(target, masks[half]),
                        };
                        value = _mm256_add_ps(value, old);
                    }
                    match WHOLE {
                        true => _mm256_storeu_ps(target, value),
                        false => _mm256_maskstore_ps(target, masks[half], value),
                    }
                }
            }
        }
    }

    /// All bits of the first `count` elements.
    #[target_feature(enable = "avx2")]
    fn mask(count: usize) -> __m256i {
        const BITS: [i32; 2 * VECTOR] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];
        let first = VECTOR - count.min(VECTOR);
        // SAFETY: eight elements from at most the eighth on.
        unsafe { _mm256_loadu_si256(BITS.as_ptr().add(first).cast()) }
    }
}

#[cfg(test)]
mod tests {
    use super::{Matrix, product};

    fn values(count: usize, seed: usize) -> Vec<f32> {
        let value = |i: usize| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.5 - 1.0;
        (0..count).map(value).collect()
    }

    #[test]
    fn products_are_those_of_the_definition_at_any_size() {
        for (m, k, n) in [
            (1, 1, 1),
            (6, 3, 16),
            (7, 64, 17),
            (13, 5, 31),
            (64, 20, 64),
            (5, 9, 8),
            (3, 0, 4),
        ] {
            for (transposed, keep) in [(false, false), (true, true)] {
                // Rows with gaps behind them, which must stay.
                let (b_row, c_row) = (n + 2, n + 3);
                let a = values(m * k, 1);
                let b = values(k * b_row, 2);
                let before = values(m * c_row, 3);
                let left = match transposed {
                    false => Matrix::rows(a.as_ptr(), k),
                    true => Matrix::rows(a.as_ptr(), m).transposed(),
                };
                let mut c = before.clone();
                // SAFETY: the vectors have the sizes given.
                unsafe {
                    let c = (c.as_mut_ptr(), c_row);
                    product([m, k, n], 0.5, left, (b.as_ptr(), b_row), keep, c);
                }
                for row in 0..m {
                    for column in 0..c_row {
                        let at = row * c_row + column;
                        let mut expected = f64::from(before[at]);
                        if column < n {
                            let sum: f64 = (0..k)
                                .map(|i| {
                                    let left = if transposed { i * m + row } else { row * k + i };
                                    f64::from(a[left]) * f64::from(b[i * b_row + column])
                                })
                                .sum();
                            expected = 0.5 * sum + if keep { expected } else { 0.0 };
                        }
                        let off = (f64::from(c[at]) - expected).abs();
                        assert!(off < 1e-5, "{m}, {k}, {n} at {row}, {column}: {off}");
                    }
                }
            }
        }
    }
}
