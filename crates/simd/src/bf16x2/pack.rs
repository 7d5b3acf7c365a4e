//! Packing of rows, and of packed rows in the VNNI layout and transposed.

use std::arch::x86_64::*;

use crate::vector::x86::{mask, transpose};

/// Lanes of a register.
pub const LANES: usize = 16;

/// Number of words in a packed row of `n` elements: whole registers.
pub const fn words(n: usize) -> usize {
    n.div_ceil(2 * LANES) * LANES
}

/// Number of lanes for `n` columns: whole registers.
pub const fn lanes(n: usize) -> usize {
    n.next_multiple_of(LANES)
}

/// Length of a row of `n` scores, whose packed row is whole registers too.
pub const fn line(n: usize) -> usize {
    2 * words(n)
}

/// Rounds thirty-two floats to bf16, to the nearest, ties to even.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn round(low: __m512, high: __m512) -> __m512i {
    // SAFETY: the types differ in what the bits mean only.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Interleaves two packed rows of 32 elements to words of both: the first sixteen columns, then the others.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) fn interleave(even: __m512i, odd: __m512i) -> [__m512i; 2] {
    let low = _mm512_set_epi16(
        47, 15, 46, 14, 45, 13, 44, 12, 43, 11, 42, 10, 41, 9, 40, 8, 39, 7, 38, 6, 37, 5, 36, 4, 35, 3, 34, 2, 33, 1, 32, 0,
    );
    let high = _mm512_add_epi16(low, _mm512_set1_epi16(16));
    [_mm512_permutex2var_epi16(even, low, odd), _mm512_permutex2var_epi16(even, high, odd)]
}

/// Columns of a row that [`pack_rows`] packs: `n` elements from `column + h·n` on for head h, times `scale`, into rows of the head's
/// matrix.
#[derive(Clone, Copy)]
pub struct RowPart {
    /// First column of the first head.
    pub column: usize,
    /// Factor of the elements.
    pub scale: f32,
    /// Destination, `[heads, rows, words(n)]`.
    pub to: *mut u32,
}

/// Packs parts of each row, `heads` matrices of `n` columns side by side in each; row after row, so that memory is read in its order. A
/// null row is zeros.
///
/// # Safety
/// The CPU multiplies bf16. Rows have the columns of every part, and the parts have room for them.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_rows(rows: &[*const f32], n: usize, heads: usize, parts: &[RowPart]) {
    let words = words(n);
    // The rest of a row of n after its whole registers of words.
    let (whole, left) = (n - n % (2 * LANES), n % (2 * LANES));
    let (low_left, high_left) = (mask(left), mask(left.saturating_sub(LANES)));
    for (i, &row) in rows.iter().enumerate() {
        for part in parts {
            let scale = _mm512_set1_ps(part.scale);
            for h in 0..heads {
                let to = part.to.wrapping_add((h * rows.len() + i) * words);
                // SAFETY: the row has these columns, and the packed one is whole registers; the masks leave out what does not exist.
                unsafe {
                    if row.is_null() {
                        (0..words).step_by(LANES).for_each(|at| _mm512_storeu_si512(to.add(at).cast(), _mm512_setzero_si512()));
                        continue;
                    }
                    let from = row.add(part.column + h * n);
                    for at in (0..whole).step_by(2 * LANES) {
                        let (low, high) = (_mm512_loadu_ps(from.add(at)), _mm512_loadu_ps(from.add(at + LANES)));
                        _mm512_storeu_si512(to.add(at / 2).cast(), round(_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale)));
                    }
                    if left > 0 {
                        let low = _mm512_maskz_loadu_ps(low_left, from.add(whole));
                        let high = _mm512_maskz_loadu_ps(high_left, from.wrapping_add(whole + LANES));
                        _mm512_storeu_si512(to.add(whole / 2).cast(), round(_mm512_mul_ps(low, scale), _mm512_mul_ps(high, scale)));
                    }
                }
            }
        }
    }
}

/// Copies parts of each row of one head, as [`pack_rows`] packs them, from rows that are words of two bf16 already: `n` and all columns are
/// even, and factors do not count.
///
/// # Safety
/// As [`pack_rows`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn copy_rows(rows: &[*const u32], n: usize, parts: &[RowPart]) {
    let words = words(n);
    for part in parts {
        for at in (0..words).step_by(LANES) {
            let lanes = mask(n / 2 - at);
            for (i, &row) in rows.iter().enumerate() {
                let (from, lanes) = (row.wrapping_add(part.column / 2 + at), if row.is_null() { 0 } else { lanes });
                // SAFETY: the row has these columns, the packed one is whole registers; the mask leaves out what does not exist.
                unsafe { _mm512_storeu_si512(part.to.add(i * words + at).cast(), _mm512_maskz_loadu_epi32(lanes, from.cast())) };
            }
        }
    }
}

/// Packs rows of [`pack_rows`] in the VNNI layout: words of two neighboring rows.
///
/// # Safety
/// The CPU multiplies bf16. `from` is packed rows of `n`; `to` has `⌈rows/2⌉ · lanes(n)` words.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_vnni(from: *const u32, rows: usize, n: usize, to: *mut u32) {
    for pair in 0..rows.div_ceil(2) {
        let to = to.wrapping_add(pair * lanes(n));
        for at in (0..lanes(n)).step_by(2 * LANES) {
            // SAFETY: both rows are packed, or the second is not there; the upper half is written where its lanes exist.
            unsafe {
                let even = from.add(2 * pair * words(n) + at / 2);
                let odd = if 2 * pair + 1 < rows { _mm512_loadu_si512(even.add(words(n)).cast()) } else { _mm512_setzero_si512() };
                let [low, high] = interleave(_mm512_loadu_si512(even.cast()), odd);
                _mm512_storeu_si512(to.add(at).cast(), low);
                if at + LANES < lanes(n) {
                    _mm512_storeu_si512(to.add(at + LANES).cast(), high);
                }
            }
        }
    }
}

/// Transposes rows of [`pack_rows`]: `to[p·line + i]` is word p of row i, up to `lanes(rows)` rows.
///
/// # Safety
/// The CPU multiplies bf16. `from` is packed rows of `n`; `to` has `⌈n/2⌉` lines of at least `lanes(rows)` words.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_transposed(from: *const u32, rows: usize, n: usize, to: *mut u32, line: usize) {
    let steps = n.div_ceil(2);
    for first in (0..rows).step_by(LANES) {
        for p in (0..steps).step_by(LANES) {
            let mut block = [_mm512_setzero_si512(); LANES];
            for (i, word) in block.iter_mut().enumerate().take(rows - first) {
                // SAFETY: the row is packed, in whole registers.
                *word = unsafe { _mm512_loadu_si512(from.add((first + i) * words(n) + p).cast()) };
            }
            transpose(&mut block);
            for (q, words) in block.into_iter().enumerate().take(steps - p) {
                // SAFETY: line p + q reaches as far as the rows, rounded up to whole registers.
                unsafe { _mm512_storeu_si512(to.add((p + q) * line + first).cast(), words) };
            }
        }
    }
}
