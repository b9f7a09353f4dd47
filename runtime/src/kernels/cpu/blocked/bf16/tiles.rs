//! Products of two packed panels: 32 × 32 sums in f32.

use std::arch::asm;
use std::arch::x86_64::{
    __m512bh, __m512i, _mm512_dpbf16_ps, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps,
    _mm512_store_ps,
};

use super::pack::{PANEL, STEP, STEP_DEPTH};
use crate::kernels::cpu::blocked::{Kernel, Sums};
use crate::processor::Bf16Instructions;

/// While it lives, the thread's tiles have the shape that products need.
pub(in crate::kernels::cpu::blocked) struct Tiles(Bf16Instructions);

/// AMX's configuration of its eight tiles.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All tiles of 16 rows of 64 bytes.
static CONFIGURATION: Configuration = {
    let (mut row_bytes, mut rows) = ([0; 16], [0; 16]);
    let mut i = 0;
    while i < 8 {
        row_bytes[i] = 64;
        rows[i] = 16;
        i += 1;
    }
    Configuration {
        palette: 1,
        start_row: 0,
        reserved: [0; 14],
        row_bytes,
        rows,
    }
};

impl Tiles {
    /// # Safety
    /// The processor has the instructions, and the system permits them.
    pub(super) unsafe fn new(instructions: Bf16Instructions) -> Self {
        if instructions == Bf16Instructions::Amx {
            // SAFETY: the caller's promise; the configuration is one of the first palette's.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const CONFIGURATION, options(nostack, readonly));
            }
        }
        Self(instructions)
    }
}

impl Kernel for Tiles {
    unsafe fn product(&self, left: *const u32, right: *const u32, depth: usize, sums: &mut Sums) {
        let steps = depth.div_ceil(STEP_DEPTH);
        // SAFETY: the caller's promise, and that of `new`.
        unsafe {
            match self.0 {
                Bf16Instructions::Amx => amx(left, right, steps, sums),
                Bf16Instructions::Avx512 => avx512(left, right, steps, sums),
            }
        }
    }
}

impl Drop for Tiles {
    fn drop(&mut self) {
        if self.0 == Bf16Instructions::Amx {
            // SAFETY: the tiles hold nothing that is still needed.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }
}

/// # Safety
/// As [`Kernel::product`], on a processor with AMX.
unsafe fn amx(left: *const u32, right: *const u32, steps: usize, sums: &mut Sums) {
    // SAFETY: reads `steps` steps of both panels and writes the sums' 32 rows of 128 bytes.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{left} + {line}]",
            "tileloadd tmm6, [{right} + {line}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{right} + {line} + 1024]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{left} + {line} + 1024]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {left}, 2048",
            "add {right}, 2048",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + 64], tmm1",
            "tilestored [{sums} + {row} + 2048], tmm2",
            "tilestored [{sums} + {row} + 2112], tmm3",
            left = inout(reg) left => _,
            right = inout(reg) right => _,
            steps = inout(reg) steps => _,
            sums = in(reg) sums,
            line = in(reg) 64usize,
            row = in(reg) 128usize,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Rows of sums that are held in registers, two vectors each.
const ROWS: usize = 8;

/// # Safety
/// As [`Kernel::product`], on a processor with AVX512-BF16.
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn avx512(left: *const u32, right: *const u32, steps: usize, sums: &mut Sums) {
    const TILE: usize = STEP / 2;
    for first in (0..PANEL).step_by(ROWS) {
        let mut rows = [[_mm512_setzero_ps(); 2]; ROWS];
        for step in 0..steps {
            // SAFETY: the rows lie in one of the step's two tiles of the left panel, 16 rows of 16 pairs each; the
            // right panel's are 16 pairs of 16 columns each.
            unsafe {
                let left = left.add(step * STEP + first * 16);
                let right = right.add(step * STEP);
                for pair in 0..16 {
                    let columns = [0, TILE]
                        .map(|tile| bf16s(_mm512_loadu_si512(right.add(tile + pair * 16).cast())));
                    for (i, sums) in rows.iter_mut().enumerate() {
                        let pair = bf16s(_mm512_set1_epi32(*left.add(i * 16 + pair) as i32));
                        sums[0] = _mm512_dpbf16_ps(sums[0], pair, columns[0]);
                        sums[1] = _mm512_dpbf16_ps(sums[1], pair, columns[1]);
                    }
                }
            }
        }
        for (row, [low, high]) in sums.0[first..].iter_mut().zip(rows) {
            // SAFETY: a row of the sums has 32 elements, at a multiple of 64 bytes.
            unsafe {
                _mm512_store_ps(row.as_mut_ptr(), low);
                _mm512_store_ps(row.as_mut_ptr().add(16), high);
            }
        }
    }
}

fn bf16s(bits: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes, and any bits are a value of either.
    unsafe { std::mem::transmute(bits) }
}
