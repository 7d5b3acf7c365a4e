//! Operands in the order in which the kernels read them: rows of a, or eight of them step by step; panels of b.

use std::arch::x86_64::*;
use std::ops::Range;

use super::avx512::{LANES, ROWS, per_step};
use super::cut::BLOCK_ROWS;
use super::element::Element;
use super::{Elements, Mat};
use crate::vector::x86::mask;

/// Distance of the rows of a packed block of a, in words, and an eighth of that of its blocks of eight: not a power of two, or they would share
/// the cache's sets.
pub(super) const fn row_words(steps: usize) -> usize {
    steps.next_multiple_of(LANES) + LANES
}

/// Whether the kernels can read a where it is: words whose inner dimension lies along memory, with eight rows in at least four different sets of
/// the first-level cache.
pub(super) fn in_place<const BF16: bool>(a: &Mat) -> bool {
    const QUARTER_PAGE: usize = 512; // words; four of these distances wrap around the sets
    let row = match a.data {
        Elements::F32(_) if BF16 => return false,
        Elements::F32(_) => a.row_stride,
        Elements::Pairs(_) => a.row_stride / 2,
    };
    a.col_stride == 1 && !row.is_multiple_of(QUARTER_PAGE)
}

/// Rows of a over some steps, as the kernels read them.
#[derive(Clone, Copy)]
pub(super) struct Rows {
    pub at: *const u32,
    /// Distances of rows, of steps, and of blocks of eight rows.
    pub row: usize,
    pub step: usize,
    pub eight: usize,
    /// Whether they may be further away than the second-level cache.
    pub far: bool,
}

impl Rows {
    /// Where [`in_place`] allows it.
    pub fn in_place(a: &Mat, first: usize, inner: usize) -> Rows {
        let first = first * a.row_stride + inner;
        let (at, row) = match a.data {
            Elements::F32(data) => (data[first..].as_ptr().cast(), a.row_stride),
            // Rows and chunks begin at whole words.
            Elements::Pairs(words) => (words[first / 2..].as_ptr(), a.row_stride / 2),
        };
        Rows { far: true, ..Rows::along(at, row) }
    }

    /// Rows that lie along memory, so far apart, and were written just before.
    pub fn along(at: *const u32, row: usize) -> Rows {
        Rows { at, row, step: 1, eight: ROWS * row, far: false }
    }

    /// From this word of each row on, where they lie along memory.
    ///
    /// # Safety
    /// Rows have so many words.
    pub unsafe fn from(self, word: usize) -> Rows {
        // SAFETY: the caller's promise.
        Rows { at: unsafe { self.at.add(word) }, ..self }
    }

    /// Brings eight rows into the second-level cache.
    pub fn fetch(&self, eight: usize, steps: usize) {
        for i in 0..ROWS {
            for p in (0..steps).step_by(LANES) {
                // SAFETY: a prefetch reads nothing that the program sees, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(self.at.wrapping_add(eight * self.eight + i * self.row + p).cast()) };
            }
        }
    }

    /// Rows of a that [`pack_a`] has put there.
    pub fn packed(a: &Mat, steps: usize, at: *const u32) -> Rows {
        match a.col_stride {
            1 => Rows { far: true, ..Rows::along(at, row_words(steps)) },
            _ => Rows { at, row: 1, step: ROWS, eight: ROWS * row_words(steps), far: true },
        }
    }
}

/// Packs rows `rows` (at most [`BLOCK_ROWS`]) and elements `inner` of a. With `sums`, which may be null, also sums each row over `inner`, without
/// rounding, where rows do not lie along memory.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; the ranges are inside `a`; `to` has `rows · row_words(steps)` words, rows rounded up to 8; `sums` is null
/// or has as many elements as there are rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_a<const BF16: bool>(a: &Mat, rows: Range<usize>, inner: Range<usize>, to: *mut u32, sums: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match a.data {
            Elements::F32(data) => pack_a_of::<BF16, f32>(a, data.as_ptr(), rows, inner, to, sums),
            Elements::Pairs(words) => pack_a_of::<BF16, u16>(a, words.as_ptr().cast(), rows, inner, to, sums),
        }
    }
}

/// # Safety
/// As [`pack_a`]; `data` is that of a.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_a_of<const BF16: bool, E: Element>(
    a: &Mat,
    data: *const E,
    rows: Range<usize>,
    inner: Range<usize>,
    to: *mut u32,
    sums: *mut f32,
) {
    let per = per_step::<BF16>();
    let steps = inner.len().div_ceil(per);
    if a.col_stride == 1 {
        let distance = row_words(steps);
        for (i, r) in rows.enumerate() {
            for p in (0..steps).step_by(LANES) {
                // SAFETY: the row has the elements of `inner`; the row of `to` is rounded up to whole vectors.
                unsafe {
                    let from = data.add(r * a.row_stride + inner.start + p * per);
                    _mm512_storeu_si512(to.add(i * distance + p).cast(), E::along::<BF16>(from, inner.len() - p * per, None));
                }
            }
        }
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match sums.is_null() {
            true => pack_across::<BF16, false, E>(a, data, rows, inner, to, sums),
            false => pack_across::<BF16, true, E>(a, data, rows, inner, to, sums),
        }
    }
}

/// [`pack_a`] where rows lie side by side in memory: two blocks of eight at a time, step after step, so that memory is read in its order.
///
/// # Safety
/// As [`pack_a_of`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_across<const BF16: bool, const SUMS: bool, E: Element>(
    a: &Mat,
    data: *const E,
    rows: Range<usize>,
    inner: Range<usize>,
    to: *mut u32,
    sums: *mut f32,
) {
    let per = per_step::<BF16>();
    let steps = inner.len().div_ceil(per);
    let mut of_rows = [_mm512_setzero_ps(); BLOCK_ROWS / LANES];
    for p in 0..steps {
        let k = inner.start + p * per;
        let second = k + 1 < inner.end;
        for (first, sum) in (0..rows.len()).step_by(LANES).zip(&mut of_rows) {
            let left = rows.len() - first;
            // SAFETY: row `k` of the transposed view has `left` elements from here, and so has the next where it is inside `inner`; the second block is
            // there if it has any.
            unsafe {
                let from = data.add(k * a.col_stride + rows.start + first);
                let words = E::across::<BF16>(from, a.col_stride, second, left, None);
                let low = to.add(first * row_words(steps) + p * ROWS);
                _mm256_storeu_si256(low.cast(), _mm512_castsi512_si256(words));
                if left > ROWS {
                    _mm256_storeu_si256(low.add(ROWS * row_words(steps)).cast(), _mm512_extracti64x4_epi64::<1>(words));
                }
                if SUMS {
                    *sum = E::add::<BF16>(*sum, words, from, a.col_stride, second, left);
                }
            }
        }
    }
    if SUMS {
        for (first, sum) in (0..rows.len()).step_by(LANES).zip(of_rows) {
            // SAFETY: there is a sum for each row.
            unsafe { _mm512_mask_storeu_ps(sums.add(first), mask(rows.len() - first), sum) };
        }
    }
}

/// Packs columns `columns` (at most 48) and elements `inner` of b.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; the ranges are inside `b`; `to` has `steps` words for each column, columns rounded up to 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_b<const BF16: bool>(b: &Mat, inner: Range<usize>, columns: Range<usize>, to: *mut u32) {
    let are_columns = b.col_stride != 1;
    // SAFETY: the caller's promise.
    unsafe {
        match b.data {
            Elements::F32(data) => pack_lines::<BF16, false, f32>(b, data.as_ptr(), are_columns, inner, columns, &[], to),
            Elements::Pairs(words) => pack_lines::<BF16, false, u16>(b, words.as_ptr().cast(), are_columns, inner, columns, &[], to),
        }
    }
}

/// The same of f32 with a factor for each of the lines that lie along memory: b's columns, or else its rows.
///
/// # Safety
/// As [`pack_b`]; b is f32, and has a factor for each line.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn pack_scaled_b<const BF16: bool>(
    b: &Mat,
    are_columns: bool,
    inner: Range<usize>,
    columns: Range<usize>,
    factors: &[f32],
    to: *mut u32,
) {
    // SAFETY: the caller's promise.
    unsafe { pack_lines::<BF16, true, f32>(b, b.f32().as_ptr(), are_columns, inner, columns, factors, to) };
}

/// # Safety
/// As [`pack_scaled_b`]; `data` is that of b.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_lines<const BF16: bool, const SCALED: bool, E: Element>(
    b: &Mat,
    data: *const E,
    are_columns: bool,
    inner: Range<usize>,
    columns: Range<usize>,
    factors: &[f32],
    to: *mut u32,
) {
    let per = per_step::<BF16>();
    let steps = inner.len().div_ceil(per);
    let vectors = columns.len().div_ceil(LANES);
    if !are_columns {
        for p in 0..steps {
            let k = inner.start + p * per;
            let second = k + 1 < inner.end;
            let by = SCALED.then(|| [factors[k], if second { factors[k + 1] } else { 0.0 }]);
            for v in 0..vectors {
                // SAFETY: row k has the columns of the range, and the next one where it is inside `inner`.
                unsafe {
                    let from = data.add(k * b.row_stride + columns.start + v * LANES);
                    let words = E::across::<BF16>(from, b.row_stride, second, columns.len() - v * LANES, by);
                    _mm512_storeu_si512(to.add((p * vectors + v) * LANES).cast(), words);
                }
            }
        }
        return;
    }
    for v in 0..vectors {
        for p in (0..steps).step_by(LANES) {
            let mut words = [_mm512_setzero_si512(); LANES];
            for (j, words) in words.iter_mut().enumerate().take(columns.len() - v * LANES) {
                let column = columns.start + v * LANES + j;
                // The columns that are packed next.
                let ahead = data.wrapping_add((column + LANES) * b.col_stride + inner.start + p * per);
                (0..per).for_each(|line| _mm_prefetch::<_MM_HINT_T1>(ahead.wrapping_add(line * LANES).cast()));
                let by = SCALED.then(|| factors[column]);
                // SAFETY: the column lies along memory and has the elements of `inner`.
                *words = unsafe { E::along::<BF16>(data.add(column * b.col_stride + inner.start + p * per), inner.len() - p * per, by) };
            }
            transpose(&mut words);
            for (q, words) in words.into_iter().enumerate().take(steps - p) {
                // SAFETY: step p + q is one of the steps.
                unsafe { _mm512_storeu_si512(to.add(((p + q) * vectors + v) * LANES).cast(), words) };
            }
        }
    }
}

/// Word j of row i becomes word i of row j.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(rows: &mut [__m512i; LANES]) {
    let mut t = *rows;
    for i in (0..16).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    let mut s = t;
    for i in (0..16).step_by(4) {
        s[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        s[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        s[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        s[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // s[4q + r] holds column r of each group of four columns, from rows 4q..4q + 4.
    for r in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(s[r], s[r + 4]); // columns r, r + 8 of rows 0..8
        let high = _mm512_shuffle_i32x4::<0x88>(s[r + 8], s[r + 12]); // ... of rows 8..16
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(s[r], s[r + 4]); // columns r + 4, r + 12
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(s[r + 8], s[r + 12]);
        rows[r] = _mm512_shuffle_i32x4::<0x88>(low, high);
        rows[r + 4] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        rows[r + 8] = _mm512_shuffle_i32x4::<0xdd>(low, high);
        rows[r + 12] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
}
