//! The inner loop of a product on AVX-512 with BF16: a block of 8 × 48 results held in registers.
//!
//! Packed operands consist of 32-bit *words*: one f32, or two bf16 that are neighbors along the inner dimension. A *step* is
//! one word of the inner dimension, so one body serves both: an f32 step is a fused multiply-add, a bf16 step `vdpbf16ps`, which adds two
//! products to each f32 sum. Ends of the inner dimension are filled with zeros.

use std::arch::x86_64::*;

use super::ends::{self, Complete, Then};
use crate::vector::x86::mask;

/// Lanes of a vector.
pub(super) const LANES: usize = 16;
/// Rows of a block of results.
pub(super) const ROWS: usize = 8;
/// Vectors in a row of a block of results: 8 × 3 sums, three vectors of b and one of a fill the 32 registers but for four.
pub(super) const VECTORS: usize = 3;

/// Elements of the inner dimension in one step.
pub(super) const fn per_step<const BF16: bool>() -> usize {
    if BF16 { 2 } else { 1 }
}

/// What the sums of a block are added to.
#[derive(Clone, Copy)]
pub(super) struct Base {
    /// A row that is the same for all rows of the block, of as many values as the block has columns; or null.
    pub row: *const f32,
    /// A block that lies as the result does, and may be what it holds; or null.
    pub block: *const f32,
}

/// One block of results: `rows × columns` at `c`, over `steps` steps.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub steps: usize,
    /// a: row i, step p at `i·a_row + p·a_step`.
    pub a: *const u32,
    pub a_row: usize,
    pub a_step: usize,
    /// Packed b: step p at `p·vectors·LANES`.
    pub b: *const u32,
    pub c: *mut f32,
    /// Distance of its rows, in elements.
    pub c_row: usize,
    /// c is bf16: there is no base block, and nothing follows but a slope.
    pub pairs: bool,
    pub base: Base,
    /// At the end.
    pub then: Then,
    /// Words that are used next, brought into the second-level cache meanwhile: a vector each step. Any address will do.
    pub ahead: *const u32,
}

type Kernel = unsafe fn(&Block, __mmask16);

macro_rules! kernels {
    ($bf16:literal) => {
        [kernels!($bf16, 1), kernels!($bf16, 2), kernels!($bf16, 3)]
    };
    ($bf16:literal, $v:literal) => {
        [
            kernel::<$bf16, 1, $v>,
            kernel::<$bf16, 2, $v>,
            kernel::<$bf16, 3, $v>,
            kernel::<$bf16, 4, $v>,
            kernel::<$bf16, 5, $v>,
            kernel::<$bf16, 6, $v>,
            kernel::<$bf16, 7, $v>,
            kernel::<$bf16, 8, $v>,
        ]
    };
}

static F32_KERNELS: [[Kernel; ROWS]; VECTORS] = kernels!(false);
static BF16_KERNELS: [[Kernel; ROWS]; VECTORS] = kernels!(true);

/// The lanes of the last of `vectors` vectors that hold `columns` columns.
fn last_lanes(columns: usize, vectors: usize) -> __mmask16 {
    mask(columns - (vectors - 1) * LANES)
}

/// Computes a block of `rows ≤ 8` rows and `columns ≤ 48` columns.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]. The packed operands reach `steps` steps, `c` that many rows and columns, and nobody else
/// uses those elements of `c` meanwhile.
pub(super) unsafe fn block<const BF16: bool>(rows: usize, columns: usize, block: &Block) {
    let vectors = columns.div_ceil(LANES);
    let kernels = if BF16 { &BF16_KERNELS } else { &F32_KERNELS };
    if let (true, Then::Slope { x }) = (block.pairs, block.then) {
        // Single precision here, until the slopes are in.
        let mut sums = [0.0f32; ROWS * VECTORS * LANES];
        let here = Block { c: sums.as_mut_ptr(), c_row: VECTORS * LANES, pairs: false, then: Then::Nothing, ..*block };
        // SAFETY: the caller's promise, and there is room for a whole block of sums.
        unsafe {
            ends::slope_ahead(rows, vectors, x, block.c_row);
            kernels[vectors - 1][rows - 1](&here, last_lanes(columns, vectors));
            let from = Complete { rows, vectors, last: last_lanes(columns, vectors), c: here.c, c_row: here.c_row };
            ends::slope_rounded(&from, x, block.c.cast(), block.c_row);
        }
        return;
    }
    // SAFETY: the caller's promise; the mask limits the last vector to the columns that exist.
    unsafe { kernels[vectors - 1][rows - 1](block, last_lanes(columns, vectors)) };
    // SAFETY: as above; what follows lies as the block does.
    unsafe {
        let at = Complete { rows, vectors, last: last_lanes(columns, vectors), c: block.c, c_row: block.c_row };
        match block.then {
            Then::Nothing => {}
            Then::Gelu => ends::gelu(&at),
            Then::GeluTo { words, row } => ends::gelu_to_words(&at, words, row),
            Then::Slope { x } => ends::slope(&at, x),
            Then::Residual { x, scale } => ends::residual(&at, x, scale),
        }
    }
}

/// # Safety
/// As [`block`], with `MR` rows, `NV` vectors of which the last has the lanes of `last`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn kernel<const BF16: bool, const MR: usize, const NV: usize>(block: &Block, last: __mmask16) {
    let &Block { steps, a, a_row, a_step, b, c, c_row, pairs, base, then, ahead } = block;
    // What is read at the end, the cache wants as early.
    let later = [base.block, then.operand()];
    let mut sums = [[_mm512_setzero_ps(); NV]; MR];
    for i in 0..MR {
        for v in 0..NV {
            // Where the result goes is not read before it is written, but the cache wants it.
            let at = i * c_row + v * LANES;
            _mm_prefetch::<_MM_HINT_ET0>(if pairs { c.cast::<u16>().wrapping_add(at).cast() } else { c.wrapping_add(at).cast() });
            for operand in later.into_iter().filter(|operand| !operand.is_null()) {
                _mm_prefetch::<_MM_HINT_T0>(operand.wrapping_add(at).cast());
            }
        }
    }
    for p in 0..steps {
        // A prefetch reads nothing that the program sees, wherever it points.
        _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(p * LANES).cast());
        let mut row = [_mm512_setzero_si512(); NV];
        for v in 0..NV {
            // SAFETY: step p of b is packed by the caller's promise.
            row[v] = unsafe { _mm512_loadu_si512(b.add((p * NV + v) * LANES).cast()) };
        }
        for i in 0..MR {
            // SAFETY: step p of row i of a is packed by the caller's promise.
            let x = _mm512_set1_epi32(unsafe { *a.add(i * a_row + p * a_step) } as i32);
            for v in 0..NV {
                sums[i][v] = match BF16 {
                    // SAFETY: the types differ in what the bits mean only.
                    true => _mm512_dpbf16_ps(sums[i][v], unsafe { std::mem::transmute::<__m512i, __m512bh>(x) }, unsafe {
                        std::mem::transmute::<__m512i, __m512bh>(row[v])
                    }),
                    false => _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(row[v]), sums[i][v]),
                };
            }
        }
    }
    if pairs {
        for v in 0..NV {
            let mask = if v + 1 == NV { last } else { !0 };
            // SAFETY: the mask leaves out columns that do not exist; row i exists, as bf16.
            unsafe {
                let row =
                    if base.row.is_null() { _mm512_setzero_ps() } else { _mm512_maskz_loadu_ps(mask, base.row.wrapping_add(v * LANES)) };
                for i in 0..MR {
                    let rounded = _mm512_cvtneps_pbh(_mm512_add_ps(sums[i][v], row));
                    let to = c.cast::<i16>().add(i * c_row).wrapping_add(v * LANES);
                    _mm256_mask_storeu_epi16(to, mask, std::mem::transmute::<__m256bh, __m256i>(rounded));
                }
            }
        }
        return;
    }
    for i in 0..MR {
        for v in 0..NV {
            let mask = if v + 1 == NV { last } else { !0 };
            // SAFETY: the mask leaves out columns that do not exist; row i exists.
            unsafe {
                let to = c.add(i * c_row).wrapping_add(v * LANES);
                let mut sum = sums[i][v];
                if !base.row.is_null() {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, base.row.wrapping_add(v * LANES)));
                }
                if !base.block.is_null() {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, base.block.wrapping_add(i * c_row + v * LANES)));
                }
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}
