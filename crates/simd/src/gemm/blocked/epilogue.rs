//! Epilogues of micro-tiles, on AVX-512: what follows their sums while they are in the cache.

use std::arch::x86_64::*;

use super::blocking::LANES;
use crate::gelu;

/// Epilogue of a micro-tile, applied to its elements c. Pointers are to values with the tile's layout.
#[derive(Clone, Copy, Default)]
pub enum TileEpilogue {
    /// Leaves the elements as they are.
    #[default]
    Identity,
    /// GELU of each element.
    Gelu,
    /// GELU, rounded to words of two bf16: row i from `i·row` on. The tile itself only holds the sums.
    GeluToBf16x2 { words: *mut u32, row: usize },
    /// Multiplication by the derivative of GELU at x.
    GeluDerivative { x: *const f32 },
    /// x + scale·c, with a factor for each row of the tile.
    Residual { x: *const f32, scale: *const f32 },
}

impl TileEpilogue {
    /// Further operand of the epilogue; null without.
    pub fn operand(self) -> *const f32 {
        match self {
            TileEpilogue::Identity | TileEpilogue::Gelu | TileEpilogue::GeluToBf16x2 { .. } => std::ptr::null(),
            TileEpilogue::GeluDerivative { x } | TileEpilogue::Residual { x, .. } => x,
        }
    }
}

/// Micro-tile of results, ready for its epilogue.
pub struct OutputTile {
    pub rows: usize,
    pub vectors: usize,
    /// Lanes of the last vector of each row.
    pub last: __mmask16,
    pub c: *mut f32,
    /// Distance of its rows.
    pub c_row: usize,
}

impl OutputTile {
    /// Changes each vector of elements: `f` gets the row, the vector's offset in the tile, and which of its lanes exist.
    ///
    /// # Safety
    /// The elements exist.
    #[inline(always)]
    unsafe fn each(&self, f: impl Fn(usize, usize, __mmask16, __m512) -> __m512) {
        for i in 0..self.rows {
            for v in 0..self.vectors {
                let mask = if v + 1 == self.vectors { self.last } else { !0 };
                let at = i * self.c_row + v * LANES;
                let to = self.c.wrapping_add(at);
                // SAFETY: the mask leaves out columns that do not exist; row i exists.
                unsafe { _mm512_mask_storeu_ps(to, mask, f(i, at, mask, _mm512_maskz_loadu_ps(mask, to))) };
            }
        }
    }
}

/// GELU of sixteen columns, fewer where the mask says so.
///
/// # Safety
/// As [`super::micro_kernel::run`]: those of the mask are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gelu_of(from: *const f32, mask: __mmask16) -> __m512 {
    // SAFETY: the mask leaves out columns that do not exist.
    gelu::avx512::value(unsafe { _mm512_maskz_loadu_ps(mask, from) })
}

/// Writes GELU of the tile as words of two bf16. Columns that do not exist are zeros, up to a whole vector of columns.
///
/// # Safety
/// As [`super::micro_kernel::run`]; `words` has room for `vectors` times eight words in each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn gelu_to_bf16x2(tile: &OutputTile, words: *mut u32, row: usize) {
    let &OutputTile { rows, vectors, last, c, c_row } = tile;
    for i in 0..rows {
        for v in (0..vectors).step_by(2) {
            // SAFETY: the masks leave out columns that do not exist; row i exists, and its words do.
            unsafe {
                let (from, to) = (c.add(i * c_row).wrapping_add(v * LANES), words.add(i * row + v * LANES / 2));
                let low = gelu_of(from, if v + 1 == vectors { last } else { !0 });
                if v + 1 == vectors {
                    let words = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(low));
                    _mm256_storeu_si256(to.cast(), words);
                } else {
                    let high = gelu_of(from.wrapping_add(LANES), if v + 2 == vectors { last } else { !0 });
                    let words = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
                    _mm512_storeu_si512(to.cast(), words);
                }
            }
        }
    }
}

/// Applies GELU to the tile.
///
/// # Safety
/// As [`super::micro_kernel::run`].
#[target_feature(enable = "avx512f")]
pub unsafe fn gelu(tile: &OutputTile) {
    // SAFETY: the caller's promise.
    unsafe { tile.each(|_, _, _, c| gelu::avx512::value(c)) };
}

/// Multiplies the tile by the derivative of GELU at x.
///
/// # Safety
/// As [`super::micro_kernel::run`].
#[target_feature(enable = "avx512f")]
pub unsafe fn gelu_derivative(tile: &OutputTile, x: *const f32) {
    // SAFETY: the caller's promise.
    unsafe { tile.each(|_, at, mask, c| _mm512_mul_ps(c, gelu::avx512::derivative(_mm512_maskz_loadu_ps(mask, x.wrapping_add(at))))) };
}

/// Prefetches the operand x of [`gelu_derivative_to_bf16`].
pub fn prefetch_operand(rows: usize, vectors: usize, x: *const f32, row: usize) {
    for i in 0..rows {
        for v in 0..vectors {
            // SAFETY: a hint, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(i * row + v * LANES).cast()) };
        }
    }
}

/// [`gelu_derivative`] with the results as bf16 at `to`, where rows are `row` elements apart as they are at x.
///
/// # Safety
/// As [`super::micro_kernel::run`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn gelu_derivative_to_bf16(tile: &OutputTile, x: *const f32, to: *mut i16, row: usize) {
    for i in 0..tile.rows {
        for v in 0..tile.vectors {
            let mask = if v + 1 == tile.vectors { tile.last } else { !0 };
            let at = i * row + v * LANES;
            // SAFETY: the mask leaves out columns that do not exist; row i exists.
            unsafe {
                let c = _mm512_maskz_loadu_ps(mask, tile.c.wrapping_add(i * tile.c_row + v * LANES));
                let c = _mm512_mul_ps(c, gelu::avx512::derivative(_mm512_maskz_loadu_ps(mask, x.wrapping_add(at))));
                _mm256_mask_storeu_epi16(to.wrapping_add(at), mask, std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(c)));
            }
        }
    }
}

/// Multiplies each row of the tile by its factor and adds x.
///
/// # Safety
/// As [`super::micro_kernel::run`].
#[target_feature(enable = "avx512f")]
pub unsafe fn residual(tile: &OutputTile, x: *const f32, scale: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        tile.each(|i, at, mask, c| _mm512_fmadd_ps(_mm512_set1_ps(*scale.add(i)), c, _mm512_maskz_loadu_ps(mask, x.wrapping_add(at))));
    }
}
