//! Softmax over the rows of a tile (keys), column by column (queries): lanes never mix. Scores times a factor are logarithms to the base 2.
//!
//! Tiles are `[rows, line]` f32, `line` a multiple of 32. Operands of products are packed on the way, as the module above describes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::pack::{LANES, interleave, round};
use super::product::BiasRows;
use crate::vector::x86::{F32x8, F32x16};
use crate::vector::{Vector, exp2};

/// Tile of scores with the columns that are computed; these begin at a multiple of 32.
#[derive(Clone)]
pub struct ScoreTile {
    /// Number of keys.
    pub rows: usize,
    /// Range of queries.
    pub columns: Range<usize>,
    /// Distance of rows.
    pub line: usize,
    /// Factor of the scores, above 0.
    pub factor: f32,
    /// Scores, then their exponentials.
    pub s: *mut f32,
}

/// Operands and results of [`ScoreTile::gradient`], all with the lines of the tile.
pub struct SoftmaxGradient<'a> {
    /// Gradient of the probabilities, `[rows, line]`.
    pub dp: *const f32,
    /// Factors that make probabilities of the exponentials, `[line]`.
    pub inverse: *const f32,
    /// Dot product `Σ_i e·dp` of each column, `[line]`.
    pub column_dots: *const f32,
    /// Gradient of the bias, to which that of the scores is added, `[rows, line]`.
    pub dbias: Option<BiasRows<'a>>,
    /// Probabilities P, packed rows, `[rows, line/2]` words.
    pub p: *mut u32,
    /// Gradient of the scores dS, packed rows.
    pub ds: *mut u32,
    /// Gradient of the scores dS, VNNI, `[⌈rows/2⌉, line]` words.
    pub ds_vnni: *mut u32,
}

/// Register that fills a whole one when zeros are put above it.
trait ZeroExtend: Vector {
    /// The register with zeros above it.
    fn zero_extended(self) -> __m512;
}

impl ZeroExtend for F32x16 {
    #[inline(always)]
    fn zero_extended(self) -> __m512 {
        self.0
    }
}

impl ZeroExtend for F32x8 {
    #[inline(always)]
    fn zero_extended(self) -> __m512 {
        // SAFETY: these tiles exist only where the CPU has AVX-512.
        unsafe { _mm512_zextps256_ps512(self.0) }
    }
}

/// Whether the last columns of a panel are half a register, as [`super::Bf16Product`] divides them.
fn is_half(left: usize) -> bool {
    left <= LANES / 2
}

impl ScoreTile {
    /// Packs `e = 2^(factor·(s − max))` in the VNNI layout, `[⌈rows/2⌉, line]` words, and leaves `1/Σ e` of each column in `inverse`.
    ///
    /// # Safety
    /// The CPU multiplies bf16; the tile, `max`, `inverse` and `to` are as large as they say.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn exponentials_vnni(&self, max: *const f32, inverse: *mut f32, to: *mut u32) {
        for at in self.columns.clone().step_by(LANES) {
            // SAFETY: whole registers of each line, or half of one.
            unsafe {
                if is_half(self.columns.end - at) {
                    self.column_vnni::<F32x8>(at, max, inverse, to);
                } else {
                    self.column_vnni::<F32x16>(at, max, inverse, to);
                }
            }
        }
    }

    /// One register of columns of [`ScoreTile::exponentials_vnni`].
    ///
    /// # Safety
    /// As [`ScoreTile::exponentials_vnni`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn column_vnni<V: ZeroExtend>(&self, at: usize, max: *const f32, inverse: *mut f32, to: *mut u32) {
        // SAFETY: rows and columns of the tile.
        unsafe {
            let factor = V::splat(self.factor);
            let shift = V::load(max.add(at)).mul(V::splat(-self.factor));
            let mut sum = V::splat(0.0);
            let mut from = self.s.add(at).cast_const();
            let mut to = to.add(at);
            let order = _mm512_set_epi16(
                31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0,
            );
            for pair in 0..self.rows.div_ceil(2) {
                let even = exp2(V::load(from).mul_add(factor, shift));
                let odd = if 2 * pair + 1 < self.rows { exp2(V::load(from.add(self.line)).mul_add(factor, shift)) } else { V::splat(0.0) };
                sum = sum.add(even.add(odd));
                let words = _mm512_permutexvar_epi16(order, round(even.zero_extended(), odd.zero_extended()));
                _mm512_storeu_si512(to.cast(), words);
                (from, to) = (from.wrapping_add(2 * self.line), to.wrapping_add(self.line));
            }
            reciprocal(sum).store(inverse.add(at));
        }
    }

    /// Replaces the scores by `e = 2^(factor·(s − max))`, and leaves `1/Σ e` of each column in `inverse`.
    ///
    /// # Safety
    /// As [`ScoreTile::exponentials_vnni`].
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn exponentials(&self, max: *const f32, inverse: *mut f32) {
        for at in self.columns.clone().step_by(LANES) {
            // SAFETY: whole registers of each line, or half of one.
            unsafe {
                if is_half(self.columns.end - at) {
                    self.column::<F32x8>(at, max, inverse);
                } else {
                    self.column::<F32x16>(at, max, inverse);
                }
            }
        }
    }

    /// One register of columns of [`ScoreTile::exponentials`].
    ///
    /// # Safety
    /// As [`ScoreTile::exponentials_vnni`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn column<V: Vector>(&self, at: usize, max: *const f32, inverse: *mut f32) {
        // SAFETY: rows and columns of the tile.
        unsafe {
            let factor = V::splat(self.factor);
            let shift = V::load(max.add(at)).mul(V::splat(-self.factor));
            let mut sum = V::splat(0.0);
            for row in 0..self.rows {
                let s = self.s.add(row * self.line + at);
                let e = exp2(V::load(s).mul_add(factor, shift));
                e.store(s);
                sum = sum.add(e);
            }
            reciprocal(sum).store(inverse.add(at));
        }
    }

    /// Gradient of the softmax with the exponentials e in the tile: `p = e/Σ e`, `dS = p ⊙ (dP − Σ p·dP)`, packed as operands of the next
    /// products.
    ///
    /// # Safety
    /// As [`ScoreTile::exponentials_vnni`]; what [`SoftmaxGradient`] points at has the rows and lines of the tile.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn gradient(&self, g: &SoftmaxGradient) {
        for at in self.columns.clone().step_by(2 * LANES) {
            // SAFETY: two registers of each line, a multiple of 32.
            unsafe {
                let inverse = [0, LANES].map(|l| _mm512_loadu_ps(g.inverse.add(at + l)));
                let dots = [0, 1].map(|v| _mm512_mul_ps(inverse[v], _mm512_loadu_ps(g.column_dots.add(at + v * LANES))));
                for pair in 0..self.rows.div_ceil(2) {
                    let even = self.gradient_of_row(2 * pair, at, inverse, dots, g);
                    let odd = if 2 * pair + 1 < self.rows {
                        self.gradient_of_row(2 * pair + 1, at, inverse, dots, g)
                    } else {
                        _mm512_setzero_si512()
                    };
                    let words = interleave(even, odd);
                    for v in 0..2 {
                        _mm512_storeu_si512(g.ds_vnni.add(pair * self.line + at + v * LANES).cast(), words[v]);
                    }
                }
            }
        }
    }

    /// Gradient of 32 columns of a row; returns their dS, packed.
    ///
    /// # Safety
    /// As [`ScoreTile::gradient`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn gradient_of_row(&self, row: usize, at: usize, inverse: [__m512; 2], dots: [__m512; 2], g: &SoftmaxGradient) -> __m512i {
        let (mut p, mut ds) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
        for v in 0..2 {
            let column = at + v * LANES;
            let at = row * self.line + column;
            // SAFETY: the row and these columns exist, in the rows of dbias too.
            unsafe {
                p[v] = _mm512_mul_ps(_mm512_loadu_ps(self.s.add(at)), inverse[v]);
                ds[v] = _mm512_mul_ps(p[v], _mm512_sub_ps(_mm512_loadu_ps(g.dp.add(at)), dots[v]));
                if let Some(dbias) = &g.dbias {
                    let dbias = dbias.row(row, self.line).add(column);
                    _mm512_storeu_ps(dbias, _mm512_add_ps(_mm512_loadu_ps(dbias), ds[v]));
                }
            }
        }
        let words = row * (self.line / 2) + at / 2;
        let packed = round(ds[0], ds[1]);
        // SAFETY: the packed rows have the columns too.
        unsafe {
            _mm512_storeu_si512(g.p.add(words).cast(), round(p[0], p[1]));
            _mm512_storeu_si512(g.ds.add(words).cast(), packed);
        }
        packed
    }
}

/// Reciprocal of every lane.
///
/// # Safety
/// The CPU has these registers.
#[inline(always)]
unsafe fn reciprocal<V: Vector>(x: V) -> V {
    let mut lanes = [1.0; LANES];
    // SAFETY: a register fits.
    unsafe {
        x.store(lanes.as_mut_ptr());
        lanes.iter_mut().for_each(|l| *l = 1.0 / *l);
        V::load(lanes.as_ptr())
    }
}
