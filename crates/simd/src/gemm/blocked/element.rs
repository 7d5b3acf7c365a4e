//! Conversion of an operand's elements to packed words: f32 are rounded where the product rounds, bf16 are copied.

use std::arch::x86_64::*;

use super::blocking::{LANES, per_step};
use crate::vector::x86::mask;

/// Steps between the prefetch of a row and its packing.
const PREFETCH_STEPS: usize = 12;

/// Element of an operand in memory, with its conversion to words.
///
/// Every function promises to be inlined into one that has the features of [`crate::cpu::bf16`].
pub trait Element: Sized {
    /// Sixteen words of consecutive elements, of which `left` exist at `from`, each multiplied by the factor `by` if there is one.
    ///
    /// # Safety
    /// `left` elements can be read.
    unsafe fn consecutive<const BF16: bool>(from: *const Self, left: usize, by: Option<f32>) -> __m512i;

    /// Sixteen words of neighboring columns: of one row (f32), or interleaved from a row and, where it is the `second`, the next one,
    /// `stride` elements further (bf16, the VNNI layout); each row multiplied by its factor, if there are any.
    ///
    /// # Safety
    /// `columns` elements can be read in each row.
    unsafe fn interleaved<const BF16: bool>(
        from: *const Self,
        stride: usize,
        second: bool,
        columns: usize,
        by: Option<[f32; 2]>,
    ) -> __m512i;

    /// Adds the elements that [`Element::interleaved`] made `words` of to `sum`, without further rounding.
    ///
    /// # Safety
    /// As [`Element::interleaved`].
    unsafe fn add<const BF16: bool>(sum: __m512, words: __m512i, from: *const Self, stride: usize, second: bool, columns: usize) -> __m512;

    /// Prefetches the rows that are packed [`PREFETCH_STEPS`] steps later: they are far apart in memory, so that the hardware does not
    /// predict them.
    #[inline(always)]
    fn prefetch_rows<const BF16: bool>(from: *const Self, stride: usize) {
        for row in 0..per_step::<BF16>() {
            // SAFETY: a hint, wherever it points.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(from.wrapping_add((PREFETCH_STEPS * per_step::<BF16>() + row) * stride).cast()) };
        }
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn consecutive<const BF16: bool>(from: *const f32, left: usize, by: Option<f32>) -> __m512i {
        // SAFETY: registers alone.
        let scaled = |x| by.map_or(x, |by| unsafe { _mm512_mul_ps(x, _mm512_set1_ps(by)) });
        // SAFETY: the masks leave out what does not exist.
        unsafe {
            let low = scaled(_mm512_maskz_loadu_ps(mask(left), from));
            if !BF16 {
                return _mm512_castps_si512(low);
            }
            let high = scaled(_mm512_maskz_loadu_ps(mask(left.saturating_sub(LANES)), from.wrapping_add(LANES)));
            std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low))
        }
    }

    #[inline(always)]
    unsafe fn interleaved<const BF16: bool>(
        from: *const f32,
        stride: usize,
        second: bool,
        columns: usize,
        by: Option<[f32; 2]>,
    ) -> __m512i {
        let mask = mask(columns);
        // SAFETY: registers alone.
        let scaled = |x, row: usize| by.map_or(x, |by| unsafe { _mm512_mul_ps(x, _mm512_set1_ps(by[row])) });
        Self::prefetch_rows::<BF16>(from, stride);
        // SAFETY: the masks leave out what does not exist.
        unsafe {
            let even = scaled(_mm512_maskz_loadu_ps(mask, from), 0);
            if !BF16 {
                return _mm512_castps_si512(even);
            }
            let odd = scaled(_mm512_maskz_loadu_ps(if second { mask } else { 0 }, from.wrapping_add(stride)), 1);
            let both = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(odd, even));
            let order = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
            );
            _mm512_permutexvar_epi16(order, both)
        }
    }

    #[inline(always)]
    unsafe fn add<const BF16: bool>(sum: __m512, _: __m512i, from: *const f32, stride: usize, second: bool, columns: usize) -> __m512 {
        // SAFETY: the masks leave out what does not exist.
        unsafe {
            let sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask(columns), from));
            if !BF16 {
                return sum;
            }
            let mask = if second { mask(columns) } else { 0 };
            _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, from.wrapping_add(stride)))
        }
    }
}

/// The bits of a bf16, for products that round. They are taken as they are: [`super::pack::pack_scaled_b`] has factors for f32 alone.
impl Element for u16 {
    #[inline(always)]
    unsafe fn consecutive<const BF16: bool>(from: *const u16, left: usize, _: Option<f32>) -> __m512i {
        // SAFETY: the masks leave out what does not exist, in words: rows have an even number of elements.
        unsafe { _mm512_maskz_loadu_epi32(mask(left / 2), from.cast()) }
    }

    #[inline(always)]
    unsafe fn interleaved<const BF16: bool>(from: *const u16, stride: usize, second: bool, columns: usize, _: Option<[f32; 2]>) -> __m512i {
        let mask = mask(columns);
        Self::prefetch_rows::<BF16>(from, stride);
        // SAFETY: the masks leave out what does not exist.
        unsafe {
            let even = _mm256_maskz_loadu_epi16(mask, from.cast());
            let odd = _mm256_maskz_loadu_epi16(if second { mask } else { 0 }, from.wrapping_add(stride).cast());
            _mm512_or_si512(_mm512_cvtepu16_epi32(even), _mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(odd)))
        }
    }

    #[inline(always)]
    unsafe fn add<const BF16: bool>(sum: __m512, words: __m512i, _: *const u16, _: usize, _: bool, _: usize) -> __m512 {
        // SAFETY: registers alone.
        unsafe {
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(words));
            let odd = _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(!0xffff)));
            _mm512_add_ps(_mm512_add_ps(sum, even), odd)
        }
    }
}
