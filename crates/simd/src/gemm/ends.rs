//! What is done to a block of results when it is complete, while it is in the cache.

use std::arch::x86_64::*;

use super::avx512::LANES;
use crate::gelu;

/// What is done to the elements c of a block when they are complete. Pointers are to values that lie as the block does.
#[derive(Clone, Copy, Default)]
pub(super) enum Then {
    #[default]
    Nothing,
    /// GELU.
    Gelu,
    /// GELU, rounded, two neighbors to a word: row i from `i·row` on. The block itself is only a place for its sums.
    GeluTo { words: *mut u32, row: usize },
    /// Multiplied by the slope of GELU at x.
    Slope { x: *const f32 },
    /// x + s·c, with a factor for each row of the block.
    Residual { x: *const f32, scale: *const f32 },
}

impl Then {
    /// What else is read.
    pub fn operand(self) -> *const f32 {
        match self {
            Then::Nothing | Then::Gelu | Then::GeluTo { .. } => std::ptr::null(),
            Then::Slope { x } | Then::Residual { x, .. } => x,
        }
    }
}

/// A block whose elements are complete.
pub(super) struct Complete {
    pub rows: usize,
    pub vectors: usize,
    /// Lanes of the last vector of each row.
    pub last: __mmask16,
    pub c: *mut f32,
    /// Distance of its rows.
    pub c_row: usize,
}

impl Complete {
    /// Changes each vector of elements: `f` gets the row, where the vector is in the block, and which of its lanes exist.
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

/// GELU of sixteen columns.
///
/// # Safety
/// As [`super::avx512::block`]: those of the mask are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gelu_of(from: *const f32, mask: __mmask16) -> __m512 {
    // SAFETY: the mask leaves out columns that do not exist.
    gelu::avx512::value(unsafe { _mm512_maskz_loadu_ps(mask, from) })
}

/// GELU to words. Columns that do not exist are zeros, up to a whole vector of columns.
///
/// # Safety
/// As [`super::avx512::block`]; `words` has room for `vectors` times eight words in each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn gelu_to_words(block: &Complete, words: *mut u32, row: usize) {
    let &Complete { rows, vectors, last, c, c_row } = block;
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

/// # Safety
/// As [`super::avx512::block`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn gelu(block: &Complete) {
    // SAFETY: the caller's promise.
    unsafe { block.each(|_, _, _, c| gelu::avx512::value(c)) };
}

/// # Safety
/// As [`super::avx512::block`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn slope(block: &Complete, x: *const f32) {
    // SAFETY: the caller's promise.
    unsafe { block.each(|_, at, mask, c| _mm512_mul_ps(c, gelu::avx512::slope(_mm512_maskz_loadu_ps(mask, x.wrapping_add(at))))) };
}

/// Asks for what [`slope_rounded`] reads.
pub(super) fn slope_ahead(rows: usize, vectors: usize, x: *const f32, row: usize) {
    for i in 0..rows {
        for v in 0..vectors {
            // SAFETY: a hint, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(x.wrapping_add(i * row + v * LANES).cast()) };
        }
    }
}

/// [`slope`] with the results as bf16 at `to`, where rows are `row` elements apart as they are at x.
///
/// # Safety
/// As [`super::avx512::block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn slope_rounded(block: &Complete, x: *const f32, to: *mut i16, row: usize) {
    for i in 0..block.rows {
        for v in 0..block.vectors {
            let mask = if v + 1 == block.vectors { block.last } else { !0 };
            let at = i * row + v * LANES;
            // SAFETY: the mask leaves out columns that do not exist; row i exists.
            unsafe {
                let c = _mm512_maskz_loadu_ps(mask, block.c.wrapping_add(i * block.c_row + v * LANES));
                let c = _mm512_mul_ps(c, gelu::avx512::slope(_mm512_maskz_loadu_ps(mask, x.wrapping_add(at))));
                _mm256_mask_storeu_epi16(to.wrapping_add(at), mask, std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(c)));
            }
        }
    }
}

/// # Safety
/// As [`super::avx512::block`].
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn residual(block: &Complete, x: *const f32, scale: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        block.each(|i, at, mask, c| _mm512_fmadd_ps(_mm512_set1_ps(*scale.add(i)), c, _mm512_maskz_loadu_ps(mask, x.wrapping_add(at))));
    }
}
