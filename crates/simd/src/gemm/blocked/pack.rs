//! Packing of operands in the order of the micro-kernels: rows of a, or micro-panels of eight rows step by step; panels of b.

use std::arch::x86_64::*;
use std::ops::Range;

use super::blocking::{LANES, MC, MR, per_step, row_words};
use super::element::Element;
use crate::gemm::matrix::{Elements, Mat};
use crate::vector::x86::{mask, transpose};

/// Whether the micro-kernels can read a in place: row-major words, with eight rows in at least four different sets of the first-level
/// cache.
pub fn in_place<const BF16: bool>(a: &Mat) -> bool {
    const QUARTER_PAGE: usize = 512; // words; four of these distances wrap around the sets
    let row = match a.data {
        Elements::F32(_) if BF16 => return false,
        Elements::F32(_) => a.row_stride,
        Elements::Bf16x2(_) => a.row_stride / 2,
    };
    a.col_stride == 1 && !row.is_multiple_of(QUARTER_PAGE)
}

/// Rows of a over some steps, in place or packed, as the micro-kernels read them.
#[derive(Clone, Copy)]
pub struct LeftRows {
    pub data: *const u32,
    /// Distance of rows.
    pub row_stride: usize,
    /// Distance of steps.
    pub step_stride: usize,
    /// Distance of micro-panels of eight rows.
    pub panel_stride: usize,
    /// Whether the rows may be further away than the second-level cache, so that they are prefetched.
    pub far: bool,
}

impl LeftRows {
    /// Rows of a in place, where [`in_place`] allows it.
    pub fn in_place(a: &Mat, first: usize, inner: usize) -> LeftRows {
        let first = first * a.row_stride + inner;
        let (data, row_stride) = match a.data {
            Elements::F32(data) => (data[first..].as_ptr().cast(), a.row_stride),
            // Rows and chunks begin at whole words.
            Elements::Bf16x2(words) => (words[first / 2..].as_ptr(), a.row_stride / 2),
        };
        LeftRows { far: true, ..LeftRows::row_major(data, row_stride) }
    }

    /// Row-major rows that were written just before.
    pub fn row_major(data: *const u32, row_stride: usize) -> LeftRows {
        LeftRows { data, row_stride, step_stride: 1, panel_stride: MR * row_stride, far: false }
    }

    /// The rows without their first `word` words, where they are row-major.
    ///
    /// # Safety
    /// The rows have so many words.
    pub unsafe fn skip(self, word: usize) -> LeftRows {
        // SAFETY: the caller's promise.
        LeftRows { data: unsafe { self.data.add(word) }, ..self }
    }

    /// Prefetches a micro-panel of eight rows into the second-level cache.
    pub fn prefetch(&self, panel: usize, steps: usize) {
        for i in 0..MR {
            for p in (0..steps).step_by(LANES) {
                // SAFETY: a prefetch reads nothing that the program sees, wherever it points.
                unsafe { _mm_prefetch::<_MM_HINT_T1>(self.data.wrapping_add(panel * self.panel_stride + i * self.row_stride + p).cast()) };
            }
        }
    }

    /// Rows of a as [`pack_a`] packed them at `data`.
    pub fn packed(a: &Mat, steps: usize, data: *const u32) -> LeftRows {
        match a.col_stride {
            1 => LeftRows { far: true, ..LeftRows::row_major(data, row_words(steps)) },
            _ => LeftRows { data, row_stride: 1, step_stride: MR, panel_stride: MR * row_words(steps), far: true },
        }
    }
}

/// Packs rows `rows` (at most [`MC`]) and elements `inner` of a. With `sums`, which may be null, also sums each row over `inner`, without
/// rounding, where a is not row-major.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; the ranges are inside `a`; `to` has `rows · row_words(steps)` words, rows rounded up
/// to 8; `sums` is null or has as many elements as there are rows.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_a<const BF16: bool>(a: &Mat, rows: Range<usize>, inner: Range<usize>, to: *mut u32, sums: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        match a.data {
            Elements::F32(data) => pack_a_elements::<BF16, f32>(a, data.as_ptr(), rows, inner, to, sums),
            Elements::Bf16x2(words) => pack_a_elements::<BF16, u16>(a, words.as_ptr().cast(), rows, inner, to, sums),
        }
    }
}

/// [`pack_a`] for one type of elements.
///
/// # Safety
/// As [`pack_a`]; `data` is that of a.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_a_elements<const BF16: bool, E: Element>(
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
                    _mm512_storeu_si512(to.add(i * distance + p).cast(), E::consecutive::<BF16>(from, inner.len() - p * per, None));
                }
            }
        }
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        match sums.is_null() {
            true => pack_a_interleaved::<BF16, false, E>(a, data, rows, inner, to, sums),
            false => pack_a_interleaved::<BF16, true, E>(a, data, rows, inner, to, sums),
        }
    }
}

/// [`pack_a`] for a column-major a: two micro-panels at a time, step after step, so that memory is read in its order.
///
/// # Safety
/// As [`pack_a_elements`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn pack_a_interleaved<const BF16: bool, const SUMS: bool, E: Element>(
    a: &Mat,
    data: *const E,
    rows: Range<usize>,
    inner: Range<usize>,
    to: *mut u32,
    sums: *mut f32,
) {
    let per = per_step::<BF16>();
    let steps = inner.len().div_ceil(per);
    let mut row_sums = [_mm512_setzero_ps(); MC / LANES];
    for p in 0..steps {
        let k = inner.start + p * per;
        let second = k + 1 < inner.end;
        for (first, sum) in (0..rows.len()).step_by(LANES).zip(&mut row_sums) {
            let left = rows.len() - first;
            // SAFETY: row `k` of the transposed view has `left` elements from here, and so has the next where it is inside `inner`; the
            // second block is there if it has any.
            unsafe {
                let from = data.add(k * a.col_stride + rows.start + first);
                let words = E::interleaved::<BF16>(from, a.col_stride, second, left, None);
                let low = to.add(first * row_words(steps) + p * MR);
                _mm256_storeu_si256(low.cast(), _mm512_castsi512_si256(words));
                if left > MR {
                    _mm256_storeu_si256(low.add(MR * row_words(steps)).cast(), _mm512_extracti64x4_epi64::<1>(words));
                }
                if SUMS {
                    *sum = E::add::<BF16>(*sum, words, from, a.col_stride, second, left);
                }
            }
        }
    }
    if SUMS {
        for (first, sum) in (0..rows.len()).step_by(LANES).zip(row_sums) {
            // SAFETY: there is a sum for each row.
            unsafe { _mm512_mask_storeu_ps(sums.add(first), mask(rows.len() - first), sum) };
        }
    }
}

/// Packs columns `columns` (at most 48) and elements `inner` of b.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; the ranges are inside `b`; `to` has `steps` words for each column, columns rounded up
/// to 16.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_b<const BF16: bool>(b: &Mat, inner: Range<usize>, columns: Range<usize>, to: *mut u32) {
    let are_columns = b.col_stride != 1;
    // SAFETY: the caller's promise.
    unsafe {
        match b.data {
            Elements::F32(data) => pack_lines::<BF16, false, f32>(b, data.as_ptr(), are_columns, inner, columns, &[], to),
            Elements::Bf16x2(words) => pack_lines::<BF16, false, u16>(b, words.as_ptr().cast(), are_columns, inner, columns, &[], to),
        }
    }
}

/// [`pack_b`] of f32 with a factor for each line of memory: for each of b's columns where `are_columns`, else for each of its rows.
///
/// # Safety
/// As [`pack_b`]; b is f32, and has a factor for each line.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub unsafe fn pack_scaled_b<const BF16: bool>(
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

/// [`pack_b`] for one type of elements, scaled or not.
///
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
                    let words = E::interleaved::<BF16>(from, b.row_stride, second, columns.len() - v * LANES, by);
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
                let next = data.wrapping_add((column + LANES) * b.col_stride + inner.start + p * per);
                (0..per).for_each(|line| _mm_prefetch::<_MM_HINT_T1>(next.wrapping_add(line * LANES).cast()));
                let by = SCALED.then(|| factors[column]);
                // SAFETY: the column is consecutive in memory and has the elements of `inner`.
                *words =
                    unsafe { E::consecutive::<BF16>(data.add(column * b.col_stride + inner.start + p * per), inner.len() - p * per, by) };
            }
            transpose(&mut words);
            for (q, words) in words.into_iter().enumerate().take(steps - p) {
                // SAFETY: step p + q is one of the steps.
                unsafe { _mm512_storeu_si512(to.add(((p + q) * vectors + v) * LANES).cast(), words) };
            }
        }
    }
}
