//! Micro-kernel of a product on AVX-512 with BF16: a micro-tile of up to 8 × 48 results whose sums are held in registers.
//!
//! One body serves both kinds of words ([`super::blocking`]): an f32 step is a fused multiply-add, a bf16 step `vdpbf16ps`, which adds two
//! products to each f32 sum. Ends of the inner dimension are filled with zeros.

use std::arch::x86_64::*;

use super::blocking::{LANES, MR, NR_VECTORS};
use super::epilogue::{self, OutputTile, TileEpilogue};
use crate::vector::x86::mask;

/// Addends of the sums of a micro-tile.
#[derive(Clone, Copy)]
pub struct TileAddend {
    /// Values of a row, added to every row of the tile; or null.
    pub bias: *const f32,
    /// A tile with the result's layout, or the result's own elements; or null.
    pub tile: *const f32,
}

/// Operands and result of one micro-tile: `rows × columns` at `c`, over `steps` steps.
#[derive(Clone, Copy)]
pub struct MicroTile {
    pub steps: usize,
    /// Words of a: row i, step p at `i·a_row + p·a_step`.
    pub a: *const u32,
    pub a_row: usize,
    pub a_step: usize,
    /// Packed b: step p at `p·vectors·LANES`.
    pub b: *const u32,
    pub c: *mut f32,
    /// Distance of rows of c, in elements.
    pub c_row: usize,
    /// Whether c is bf16: then no tile is added, and the epilogue is the identity or GELU's derivative.
    pub bf16: bool,
    pub addend: TileAddend,
    /// Operation on the complete elements.
    pub epilogue: TileEpilogue,
    /// Words that are used next, prefetched into the second-level cache: a vector each step. Any address will do.
    pub prefetch: *const u32,
}

type MicroKernel = unsafe fn(&MicroTile, __mmask16);

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

static F32_KERNELS: [[MicroKernel; MR]; NR_VECTORS] = kernels!(false);
static BF16_KERNELS: [[MicroKernel; MR]; NR_VECTORS] = kernels!(true);

/// The lanes of the last of `vectors` vectors that hold `columns` columns.
fn last_lanes(columns: usize, vectors: usize) -> __mmask16 {
    mask(columns - (vectors - 1) * LANES)
}

/// Computes a micro-tile of `rows ≤ 8` rows and `columns ≤ 48` columns, epilogue included.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]. The packed operands reach `steps` steps, `c` that many rows and columns, and nobody
/// else uses those elements of `c` meanwhile.
pub unsafe fn run<const BF16: bool>(rows: usize, columns: usize, tile: &MicroTile) {
    let vectors = columns.div_ceil(LANES);
    let kernels = if BF16 { &BF16_KERNELS } else { &F32_KERNELS };
    if let (true, TileEpilogue::GeluDerivative { x }) = (tile.bf16, tile.epilogue) {
        // Single precision here, until the derivatives are in.
        let mut sums = [0.0f32; MR * NR_VECTORS * LANES];
        let here = MicroTile { c: sums.as_mut_ptr(), c_row: NR_VECTORS * LANES, bf16: false, epilogue: TileEpilogue::Identity, ..*tile };
        // SAFETY: the caller's promise, and there is room for a whole tile of sums.
        unsafe {
            epilogue::prefetch_operand(rows, vectors, x, tile.c_row);
            kernels[vectors - 1][rows - 1](&here, last_lanes(columns, vectors));
            let from = OutputTile { rows, vectors, last: last_lanes(columns, vectors), c: here.c, c_row: here.c_row };
            epilogue::gelu_derivative_to_bf16(&from, x, tile.c.cast(), tile.c_row);
        }
        return;
    }
    // SAFETY: the caller's promise; the mask limits the last vector to the columns that exist.
    unsafe { kernels[vectors - 1][rows - 1](tile, last_lanes(columns, vectors)) };
    // SAFETY: as above; operands of the epilogue have the tile's layout.
    unsafe {
        let at = OutputTile { rows, vectors, last: last_lanes(columns, vectors), c: tile.c, c_row: tile.c_row };
        match tile.epilogue {
            TileEpilogue::Identity => {}
            TileEpilogue::Gelu => epilogue::gelu(&at),
            TileEpilogue::GeluToBf16x2 { words, row } => epilogue::gelu_to_bf16x2(&at, words, row),
            TileEpilogue::GeluDerivative { x } => epilogue::gelu_derivative(&at, x),
            TileEpilogue::Residual { x, scale } => epilogue::residual(&at, x, scale),
        }
    }
}

/// Sums of a micro-tile of one size, stored with its addends.
///
/// # Safety
/// As [`run`], with `ROWS` rows, `VECTORS` vectors of which the last has the lanes of `last`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn kernel<const BF16: bool, const ROWS: usize, const VECTORS: usize>(tile: &MicroTile, last: __mmask16) {
    let &MicroTile { steps, a, a_row, a_step, b, c, c_row, bf16, addend, epilogue, prefetch } = tile;
    // Operands of the end are prefetched now.
    let read_last = [addend.tile, epilogue.operand()];
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for i in 0..ROWS {
        for v in 0..VECTORS {
            // The result is not read before it is written, but its lines are prefetched for the stores.
            let at = i * c_row + v * LANES;
            _mm_prefetch::<_MM_HINT_ET0>(if bf16 { c.cast::<u16>().wrapping_add(at).cast() } else { c.wrapping_add(at).cast() });
            for operand in read_last.into_iter().filter(|operand| !operand.is_null()) {
                _mm_prefetch::<_MM_HINT_T0>(operand.wrapping_add(at).cast());
            }
        }
    }
    for p in 0..steps {
        // A prefetch reads nothing that the program sees, wherever it points.
        _mm_prefetch::<_MM_HINT_T1>(prefetch.wrapping_add(p * LANES).cast());
        let mut row = [_mm512_setzero_si512(); VECTORS];
        for v in 0..VECTORS {
            // SAFETY: step p of b is packed by the caller's promise.
            row[v] = unsafe { _mm512_loadu_si512(b.add((p * VECTORS + v) * LANES).cast()) };
        }
        for i in 0..ROWS {
            // SAFETY: step p of row i of a is packed by the caller's promise.
            let x = _mm512_set1_epi32(unsafe { *a.add(i * a_row + p * a_step) } as i32);
            for v in 0..VECTORS {
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
    if bf16 {
        for v in 0..VECTORS {
            let mask = if v + 1 == VECTORS { last } else { !0 };
            // SAFETY: the mask leaves out columns that do not exist; row i exists, as bf16.
            unsafe {
                let row = if addend.bias.is_null() {
                    _mm512_setzero_ps()
                } else {
                    _mm512_maskz_loadu_ps(mask, addend.bias.wrapping_add(v * LANES))
                };
                for i in 0..ROWS {
                    let rounded = _mm512_cvtneps_pbh(_mm512_add_ps(sums[i][v], row));
                    let to = c.cast::<i16>().add(i * c_row).wrapping_add(v * LANES);
                    _mm256_mask_storeu_epi16(to, mask, std::mem::transmute::<__m256bh, __m256i>(rounded));
                }
            }
        }
        return;
    }
    for i in 0..ROWS {
        for v in 0..VECTORS {
            let mask = if v + 1 == VECTORS { last } else { !0 };
            // SAFETY: the mask leaves out columns that do not exist; row i exists.
            unsafe {
                let to = c.add(i * c_row).wrapping_add(v * LANES);
                let mut sum = sums[i][v];
                if !addend.bias.is_null() {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, addend.bias.wrapping_add(v * LANES)));
                }
                if !addend.tile.is_null() {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, addend.tile.wrapping_add(i * c_row + v * LANES)));
                }
                _mm512_mask_storeu_ps(to, mask, sum);
            }
        }
    }
}
