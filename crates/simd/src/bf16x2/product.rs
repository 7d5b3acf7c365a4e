//! Products of packed tiles: blocks of up to 6 rows × 4 registers of sums, with epilogues while the sums are in registers.

use std::arch::x86_64::*;
use std::ops::Range;

use super::pack::LANES;
use crate::vector::Vector;
use crate::vector::x86::{F32x8, F32x16, mask};

/// Rows of a block at most: 6 × 4 sums, four registers of b and one of a.
const ROWS: usize = 6;
/// Rows of a block of one or two registers at most.
const NARROW_ROWS: usize = 10;
/// Registers in a row of a block at most.
const VECTORS: usize = 4;

/// Product of packed tiles, `sum(i, j) = Σ_p a(i, p)·b(p, j)` over words, each of which adds two products to the sum;
/// `a(i, p) = a[i·a_row + p·a_step]`, `b(p, j) = b[p·b_step + j]`.
#[derive(Clone, Copy)]
pub struct Bf16Product {
    /// Number of words of the inner dimension.
    pub steps: usize,
    /// Operand a.
    pub a: *const u32,
    /// Distance of rows of a.
    pub a_row: usize,
    /// Distance of steps of a.
    pub a_step: usize,
    /// Operand b.
    pub b: *const u32,
    /// Distance of steps of b, whole registers.
    pub b_step: usize,
}

/// Scores of keys (rows) and queries (columns): the sums begin with a bias and a mask, and each column's maximum is kept.
#[derive(Clone, Copy)]
pub struct Scores<'a> {
    /// Bias, `[rows, line]`; zeros without.
    pub bias: Option<BiasRows<'a>>,
    /// Mask that is added, if there is one.
    pub masks: Option<RegionMask<'a>>,
    /// Distance of rows.
    pub line: usize,
    /// Destination of the scores, `[rows, line]`.
    pub to: *mut f32,
    /// Running maximum of each column, `[line]`.
    pub max: *mut f32,
}

/// Rows of a bias, one for each key.
#[derive(Clone, Copy)]
pub struct BiasRows<'a> {
    /// Address of the first number.
    pub base: *mut f32,
    /// Offset of each row; where this is empty, a row begins a line after the one before. Rows may overlap.
    pub starts: &'a [u32],
}

impl BiasRows<'_> {
    /// Address of a row.
    ///
    /// # Safety
    /// There are starts for so many rows, or none.
    #[inline(always)]
    pub(super) unsafe fn row(&self, row: usize, line: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        self.base.wrapping_add(if self.starts.is_empty() { row * line } else { unsafe { *self.starts.get_unchecked(row) as usize } })
    }
}

/// Mask of scores: an addend for each query and the region of the key.
#[derive(Clone, Copy)]
pub struct RegionMask<'a> {
    /// Share of each query in the mask, `[regions, line]`.
    pub shares: *const f32,
    /// Factor of the shares.
    pub value: f32,
    /// Region of each key.
    pub region: &'a [u8],
}

/// Register, some of whose lanes are read or written.
trait MaskedVector: Vector {
    /// Loads the first lanes of a mask; the others are zero.
    ///
    /// # Safety
    /// The CPU has AVX-512; these lanes exist.
    unsafe fn load_masked(from: *const f32, lanes: __mmask16) -> Self;

    /// Stores the first lanes of a mask.
    ///
    /// # Safety
    /// As [`MaskedVector::load_masked`].
    unsafe fn store_masked(self, to: *mut f32, lanes: __mmask16);

    /// Stores the first lanes of a mask as bf16.
    ///
    /// # Safety
    /// As [`MaskedVector::load_masked`]; the CPU multiplies bf16.
    unsafe fn store_masked_bf16(self, to: *mut u16, lanes: __mmask16);
}

impl MaskedVector for F32x16 {
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, lanes: __mmask16) -> Self {
        // SAFETY: the caller's promise.
        F32x16(unsafe { _mm512_maskz_loadu_ps(lanes, from) })
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, lanes: __mmask16) {
        // SAFETY: the caller's promise.
        unsafe { _mm512_mask_storeu_ps(to, lanes, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked_bf16(self, to: *mut u16, lanes: __mmask16) {
        // SAFETY: the caller's promise; the types differ in what the bits mean only.
        unsafe { _mm256_mask_storeu_epi16(to.cast(), lanes, std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(self.0))) }
    }
}

impl MaskedVector for F32x8 {
    #[inline(always)]
    unsafe fn load_masked(from: *const f32, lanes: __mmask16) -> Self {
        // SAFETY: the caller's promise.
        F32x8(unsafe { _mm256_maskz_loadu_ps(lanes as u8, from) })
    }
    #[inline(always)]
    unsafe fn store_masked(self, to: *mut f32, lanes: __mmask16) {
        // SAFETY: the caller's promise.
        unsafe { _mm256_mask_storeu_ps(to, lanes as u8, self.0) }
    }
    #[inline(always)]
    unsafe fn store_masked_bf16(self, to: *mut u16, lanes: __mmask16) {
        // SAFETY: the caller's promise; the types differ in what the bits mean only.
        unsafe { _mm_mask_storeu_epi16(to.cast(), lanes as u8, std::mem::transmute::<__m128bh, __m128i>(_mm256_cvtneps_pbh(self.0))) }
    }
}

/// Epilogue of a [`Bf16Product`]: first values of the sums, and operations on the complete sums.
trait Bf16Epilogue {
    /// First values of the sums of `MR` rows from `row`.
    ///
    /// # Safety
    /// The CPU has the registers; the rows and the lanes from column `at` exist.
    #[inline(always)]
    unsafe fn init<V: MaskedVector, const MR: usize>(&self, _row: usize, _at: usize) -> [V; MR] {
        // SAFETY: the caller's promise.
        unsafe { [V::splat(0.0); MR] }
    }

    /// Stores the complete sums of `MR` rows from `row`.
    ///
    /// # Safety
    /// As [`Bf16Epilogue::init`].
    unsafe fn store<V: MaskedVector, const MR: usize>(&self, row: usize, at: usize, sums: [V; MR]);
}

impl Bf16Epilogue for Scores<'_> {
    #[inline(always)]
    unsafe fn init<V: MaskedVector, const MR: usize>(&self, row: usize, at: usize) -> [V; MR] {
        // SAFETY: rows and columns of the bias and of a mask, by the caller's promise.
        unsafe {
            let mut sums = [V::splat(0.0); MR];
            if let Some(bias) = &self.bias {
                for r in 0..MR {
                    sums[r] = V::load(bias.row(row + r, self.line).add(at));
                }
            }
            if let Some(RegionMask { shares, value, region }) = &self.masks {
                for r in 0..MR {
                    let share = V::load(shares.add(usize::from(*region.get_unchecked(row + r)) * self.line + at));
                    sums[r] = share.mul_add(V::splat(*value), sums[r]);
                }
            }
            sums
        }
    }

    #[inline(always)]
    unsafe fn store<V: MaskedVector, const MR: usize>(&self, row: usize, at: usize, sums: [V; MR]) {
        // SAFETY: rows and columns of the scores and the maxima, by the caller's promise.
        unsafe {
            let mut max = V::load(self.max.add(at));
            for r in 0..MR {
                sums[r].store(self.to.add((row + r) * self.line + at));
                max = max.max(sums[r]);
            }
            max.store(self.max.add(at));
        }
    }
}

/// Epilogue that stores the sums, and adds up their products with another tile by column.
struct StoreAndDot {
    other: *const f32,
    line: usize,
    to: *mut f32,
    column_dots: *mut f32,
}

impl Bf16Epilogue for StoreAndDot {
    #[inline(always)]
    unsafe fn store<V: MaskedVector, const MR: usize>(&self, row: usize, at: usize, sums: [V; MR]) {
        // SAFETY: rows and columns of both tiles, by the caller's promise.
        unsafe {
            let mut dots = V::load(self.column_dots.add(at));
            for r in 0..MR {
                let at = (row + r) * self.line + at;
                sums[r].store(self.to.add(at));
                dots = sums[r].mul_add(V::load(self.other.add(at)), dots);
            }
            dots.store(self.column_dots.add(at));
        }
    }
}

/// Epilogue that stores the sums times factors as rows, or adds them to rows.
struct StoreRows<'a> {
    columns: usize,
    factor: f32,
    factors: Option<&'a [f32]>,
    add: bool,
    to: *mut f32,
    pitch: usize,
}

impl Bf16Epilogue for StoreRows<'_> {
    #[inline(always)]
    unsafe fn store<V: MaskedVector, const MR: usize>(&self, row: usize, at: usize, sums: [V; MR]) {
        let lanes = mask(self.columns - at);
        for r in 0..MR {
            // SAFETY: row and columns exist by the caller's promise; lanes beyond the last column are left out.
            unsafe {
                let factor = self.factor * self.factors.map_or(1.0, |f| *f.get_unchecked(row + r));
                let sum = sums[r].mul(V::splat(factor));
                let to = self.to.add((row + r) * self.pitch + at);
                if self.add { V::load_masked(to, lanes).add(sum) } else { sum }.store_masked(to, lanes);
            }
        }
    }
}

/// Epilogue that stores the sums times factors as rows of bf16.
struct StoreBf16Rows<'a> {
    columns: usize,
    factor: f32,
    factors: Option<&'a [f32]>,
    to: *mut u16,
    pitch: usize,
}

impl Bf16Epilogue for StoreBf16Rows<'_> {
    #[inline(always)]
    unsafe fn store<V: MaskedVector, const MR: usize>(&self, row: usize, at: usize, sums: [V; MR]) {
        let lanes = mask(self.columns - at);
        for r in 0..MR {
            // SAFETY: row and columns exist by the caller's promise; lanes beyond the last column are left out.
            unsafe {
                let factor = self.factor * self.factors.map_or(1.0, |f| *f.get_unchecked(row + r));
                sums[r].mul(V::splat(factor)).store_masked_bf16(self.to.add((row + r) * self.pitch + at), lanes);
            }
        }
    }
}

/// Ranges of rows of nearly equal height, at most `most`.
fn blocks(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let blocks = rows.div_ceil(most);
    let (height, higher) = (rows / blocks, rows % blocks);
    (0..blocks).map(move |i| i * height + i.min(higher)..(i + 1) * height + (i + 1).min(higher))
}

impl Bf16Product {
    /// Computes the scores of `rows` keys and the queries of `columns`, which begin at a register.
    ///
    /// # Safety
    /// The CPU multiplies bf16. `a` has the rows, `b` the columns rounded up to whole registers, both `steps` words of each; what
    /// [`Scores`] points at has the rows and rounded columns, and nothing of it is an operand.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn scores(&self, rows: usize, columns: Range<usize>, scores: &Scores) {
        // SAFETY: the caller's promise.
        unsafe { self.run(rows, columns, scores) }
    }

    /// Stores the sums to `to[i·line + j]`, and adds `Σ_i to(i, j)·other(i, j)` to `column_dots[j]`.
    ///
    /// # Safety
    /// As [`Bf16Product::scores`]: `other`, `to` and `column_dots` have the rows and rounded columns.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn store_and_dot(
        &self,
        rows: usize,
        columns: Range<usize>,
        other: *const f32,
        line: usize,
        to: *mut f32,
        column_dots: *mut f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.run(rows, columns, &StoreAndDot { other, line, to, column_dots }) }
    }

    /// Stores row i of the sums, times `factor·factors[i]`, to the first `columns` floats at `to + i·pitch`, or adds it to them.
    ///
    /// # Safety
    /// As [`Bf16Product::scores`]: `to` has the rows and columns, and there are as many factors as rows.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn store_rows(
        &self,
        rows: usize,
        columns: usize,
        factor: f32,
        factors: Option<&[f32]>,
        add: bool,
        to: *mut f32,
        pitch: usize,
    ) {
        // SAFETY: the caller's promise.
        unsafe { self.run(rows, 0..columns, &StoreRows { columns, factor, factors, add, to, pitch }) }
    }

    /// Stores row i of the sums, times `factor·factors[i]`, to the first `columns` bf16 at `to + i·pitch`.
    ///
    /// # Safety
    /// As [`Bf16Product::store_rows`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn store_bf16_rows(&self, rows: usize, columns: usize, factor: f32, factors: Option<&[f32]>, to: *mut u16, pitch: usize) {
        // SAFETY: the caller's promise.
        unsafe { self.run(rows, 0..columns, &StoreBf16Rows { columns, factor, factors, to, pitch }) }
    }

    /// Runs the product over panels of columns.
    ///
    /// # Safety
    /// As [`Bf16Product::scores`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn run<S: Bf16Epilogue>(&self, rows: usize, columns: Range<usize>, sums: &S) {
        for at in columns.clone().step_by(VECTORS * LANES) {
            // SAFETY: columns from `at` on, rounded up to registers, exist by the caller's promise.
            unsafe {
                match columns.end - at {
                    1..=16 => self.narrow::<1, S>(rows, at, sums),
                    17..=32 => self.narrow::<2, S>(rows, at, sums),
                    33..=48 => self.panel::<3, false, S>(rows, at, sums),
                    // Windows of 7: 49 columns are three registers and half of one.
                    49..=56 => self.panel::<3, true, S>(rows, at, sums),
                    _ => self.panel::<4, false, S>(rows, at, sums),
                }
            }
        }
    }

    /// Computes all rows of `NV` registers of columns, and of half of one more.
    ///
    /// # Safety
    /// As [`Bf16Product::scores`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn panel<const NV: usize, const HALF: bool, S: Bf16Epilogue>(&self, rows: usize, at: usize, sums: &S) {
        for Range { start: row, end } in blocks(rows, ROWS) {
            // SAFETY: rows of the product.
            unsafe {
                match end - row {
                    1 => self.block::<1, NV, HALF, S>(row, at, sums),
                    2 => self.block::<2, NV, HALF, S>(row, at, sums),
                    3 => self.block::<3, NV, HALF, S>(row, at, sums),
                    4 => self.block::<4, NV, HALF, S>(row, at, sums),
                    5 => self.block::<5, NV, HALF, S>(row, at, sums),
                    _ => self.block::<6, NV, HALF, S>(row, at, sums),
                }
            }
        }
    }

    /// Computes all rows of one or two registers of columns in higher blocks, or sums would wait for each other.
    ///
    /// # Safety
    /// As [`Bf16Product::scores`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn narrow<const NV: usize, S: Bf16Epilogue>(&self, rows: usize, at: usize, sums: &S) {
        for Range { start: row, end } in blocks(rows, NARROW_ROWS) {
            // SAFETY: rows of the product.
            unsafe {
                match end - row {
                    1 => self.block::<1, NV, false, S>(row, at, sums),
                    2 => self.block::<2, NV, false, S>(row, at, sums),
                    3 => self.block::<3, NV, false, S>(row, at, sums),
                    4 => self.block::<4, NV, false, S>(row, at, sums),
                    5 => self.block::<5, NV, false, S>(row, at, sums),
                    6 => self.block::<6, NV, false, S>(row, at, sums),
                    7 => self.block::<7, NV, false, S>(row, at, sums),
                    8 => self.block::<8, NV, false, S>(row, at, sums),
                    9 => self.block::<9, NV, false, S>(row, at, sums),
                    _ => self.block::<10, NV, false, S>(row, at, sums),
                }
            }
        }
    }

    /// Computes a block of `MR` rows.
    ///
    /// # Safety
    /// As [`Bf16Product::scores`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn block<const MR: usize, const NV: usize, const HALF: bool, S: Bf16Epilogue>(&self, row: usize, at: usize, out: &S) {
        let &Bf16Product { steps, a, a_row, a_step, b, b_step } = self;
        // SAFETY: rows from `row` and columns from `at` exist, with `steps` words each, by the caller's promise.
        unsafe {
            let (mut sums, mut halves) = ([[F32x16::splat(0.0); MR]; NV], [F32x8::splat(0.0); MR]);
            for v in 0..NV {
                sums[v] = out.init(row, at + v * LANES);
            }
            if HALF {
                halves = out.init(row, at + NV * LANES);
            }
            let (mut a, mut b) = (a.add(row * a_row), b.add(at));
            for _ in 0..steps {
                let mut column = [_mm512_setzero_si512(); NV];
                for v in 0..NV {
                    column[v] = _mm512_loadu_si512(b.add(v * LANES).cast());
                }
                let half = if HALF { _mm256_loadu_si256(b.add(NV * LANES).cast()) } else { _mm256_setzero_si256() };
                for r in 0..MR {
                    let x = _mm512_set1_epi32(*a.add(r * a_row) as i32);
                    for v in 0..NV {
                        sums[v][r].0 = dot(sums[v][r].0, x, column[v]);
                    }
                    if HALF {
                        halves[r].0 = half_dot(halves[r].0, _mm512_castsi512_si256(x), half);
                    }
                }
                (a, b) = (a.wrapping_add(a_step), b.wrapping_add(b_step));
            }
            for v in 0..NV {
                out.store(row, at + v * LANES, sums[v]);
            }
            if HALF {
                out.store(row, at + NV * LANES, halves);
            }
        }
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
fn dot(sum: __m512, a: __m512i, b: __m512i) -> __m512 {
    // SAFETY: the types differ in what the bits mean only.
    unsafe { _mm512_dpbf16_ps(sum, std::mem::transmute::<__m512i, __m512bh>(a), std::mem::transmute::<__m512i, __m512bh>(b)) }
}

#[inline]
#[target_feature(enable = "avx512f,avx512vl,avx512bf16")]
fn half_dot(sum: __m256, a: __m256i, b: __m256i) -> __m256 {
    // SAFETY: the types differ in what the bits mean only.
    unsafe { _mm256_dpbf16_ps(sum, std::mem::transmute::<__m256i, __m256bh>(a), std::mem::transmute::<__m256i, __m256bh>(b)) }
}
