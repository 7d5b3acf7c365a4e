//! The inner loops of a product on AVX-512 with BF16: packing, and a block of 8 × 48 results held in registers.
//!
//! Packed operands consist of 32-bit *words*: one f32, or two bf16 that are neighbours along the inner dimension. A *step* is
//! one word of the inner dimension, so one body serves both: an f32 step is a fused multiply-add, a bf16 step `vdpbf16ps`, which adds two
//! products to each f32 sum. Ends of the inner dimension are filled with zeros.

use std::arch::x86_64::*;
use std::ops::Range;

use super::cut::BLOCK_ROWS;
use super::element::Element;
use super::{Elements, Mat};
use crate::gelu;
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

/// What is done to the elements c of a block when they are complete. Pointers are to values that lie as the block does.
#[derive(Clone, Copy, Default)]
pub(super) enum Then {
    #[default]
    Nothing,
    /// GELU.
    Gelu,
    /// GELU, rounded, two neighbours to a word: row i from `i·row` on. The block itself is only a place for its sums.
    GeluTo { words: *mut u32, row: usize },
    /// Multiplied by the slope of GELU at x.
    Slope { x: *const f32 },
    /// x + s·c, with a factor for each row of the block.
    Residual { x: *const f32, scale: *const f32 },
}

impl Then {
    /// What else is read.
    fn operand(self) -> *const f32 {
        match self {
            Then::Nothing | Then::Gelu | Then::GeluTo { .. } => std::ptr::null(),
            Then::Slope { x } | Then::Residual { x, .. } => x,
        }
    }
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
            slope_ahead(rows, vectors, x, block.c_row);
            kernels[vectors - 1][rows - 1](&here, last_lanes(columns, vectors));
            let from = Complete { rows, vectors, last: last_lanes(columns, vectors), c: here.c, c_row: here.c_row };
            slope_rounded(&from, x, block.c.cast(), block.c_row);
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
            Then::Gelu => gelu(&at),
            Then::GeluTo { words, row } => gelu_to_words(&at, words, row),
            Then::Slope { x } => slope(&at, x),
            Then::Residual { x, scale } => residual(&at, x, scale),
        }
    }
}

/// A block whose elements are complete.
struct Complete {
    rows: usize,
    vectors: usize,
    /// Lanes of the last vector of each row.
    last: __mmask16,
    c: *mut f32,
    c_row: usize,
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
/// As [`block`]: those of the mask are there.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn gelu_of(from: *const f32, mask: __mmask16) -> __m512 {
    // SAFETY: the mask leaves out columns that do not exist.
    gelu::avx512::value(unsafe { _mm512_maskz_loadu_ps(mask, from) })
}

/// GELU to words. Columns that do not exist are zeros, up to a whole vector of columns.
///
/// # Safety
/// As [`block`]; `words` has room for `vectors` times eight words in each row.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn gelu_to_words(block: &Complete, words: *mut u32, row: usize) {
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
/// As [`block`].
#[target_feature(enable = "avx512f")]
unsafe fn gelu(block: &Complete) {
    // SAFETY: the caller's promise.
    unsafe { block.each(|_, _, _, c| gelu::avx512::value(c)) };
}

/// # Safety
/// As [`block`].
#[target_feature(enable = "avx512f")]
unsafe fn slope(block: &Complete, x: *const f32) {
    // SAFETY: the caller's promise.
    unsafe { block.each(|_, at, mask, c| _mm512_mul_ps(c, gelu::avx512::slope(_mm512_maskz_loadu_ps(mask, x.wrapping_add(at))))) };
}

/// Asks for what [`slope_rounded`] reads.
fn slope_ahead(rows: usize, vectors: usize, x: *const f32, row: usize) {
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
/// As [`block`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
unsafe fn slope_rounded(block: &Complete, x: *const f32, to: *mut i16, row: usize) {
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
/// As [`block`].
#[target_feature(enable = "avx512f")]
unsafe fn residual(block: &Complete, x: *const f32, scale: *const f32) {
    // SAFETY: the caller's promise.
    unsafe {
        block.each(|i, at, mask, c| _mm512_fmadd_ps(_mm512_set1_ps(*scale.add(i)), c, _mm512_maskz_loadu_ps(mask, x.wrapping_add(at))));
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
