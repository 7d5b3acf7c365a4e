//! Softmax over the rows of a tile (keys), column by column (queries): lanes never mix. Scores times a factor are logarithms to the base 2.
//!
//! Tiles are `[rows, line]` f32, `line` a multiple of 32. What becomes an operand of a product is packed on the way, as the module above describes.

use std::arch::x86_64::*;
use std::ops::Range;

use super::{LANES, Lines, interleave, round};
use crate::vector::x86::{F32x8, F32x16};
use crate::vector::{Vector, exp2};

/// A tile of scores, and the columns of it that are meant; these begin at a multiple of 32.
#[derive(Clone)]
pub struct Tile {
    /// Keys.
    pub rows: usize,
    /// Queries.
    pub columns: Range<usize>,
    /// Distance of rows.
    pub line: usize,
    /// Factor of the scores, above 0.
    pub factor: f32,
    /// Scores, then what comes of them.
    pub s: *mut f32,
}

/// Operands and results of [`Tile::gradient`], all with the lines of the tile.
pub struct Gradient<'a> {
    /// Gradient of the probabilities, `[rows, line]`.
    pub dp: *const f32,
    /// Factors that make probabilities of the exponentials, `[line]`.
    pub inverse: *const f32,
    /// `Σ_i e·dp` of each column, `[line]`.
    pub along: *const f32,
    /// Grows by the gradient of the scores, `[rows, line]`.
    pub dbias: Option<Lines<'a>>,
    /// P, packed rows, `[rows, line/2]` words.
    pub p: *mut u32,
    /// dS, packed rows.
    pub ds: *mut u32,
    /// dS, packed across, `[⌈rows/2⌉, line]` words.
    pub across: *mut u32,
}

/// A register as a whole one, zeros above it.
trait Wide: Vector {
    fn wide(self) -> __m512;
}

impl Wide for F32x16 {
    #[inline(always)]
    fn wide(self) -> __m512 {
        self.0
    }
}

impl Wide for F32x8 {
    #[inline(always)]
    fn wide(self) -> __m512 {
        // SAFETY: these tiles exist only where the CPU has AVX-512.
        unsafe { _mm512_zextps256_ps512(self.0) }
    }
}

/// Columns of the last register of a panel that fit into half of it, as [`super::Product`] cuts them.
fn is_half(left: usize) -> bool {
    left <= LANES / 2
}

impl Tile {
    /// Packs `e = 2^(factor·(s − max))` across, `[⌈rows/2⌉, line]` words, and leaves `1/Σ e` of each column in `inverse`.
    ///
    /// # Safety
    /// The CPU multiplies bf16; the tile, `max`, `inverse` and `to` are as large as they say.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn exponentials_across(&self, max: *const f32, inverse: *mut f32, to: *mut u32) {
        for at in self.columns.clone().step_by(LANES) {
            // SAFETY: whole registers of each line, or half of one.
            unsafe {
                if is_half(self.columns.end - at) {
                    self.column_across::<F32x8>(at, max, inverse, to);
                } else {
                    self.column_across::<F32x16>(at, max, inverse, to);
                }
            }
        }
    }

    /// # Safety
    /// As [`Tile::exponentials_across`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn column_across<V: Wide>(&self, at: usize, max: *const f32, inverse: *mut f32, to: *mut u32) {
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
                let words = _mm512_permutexvar_epi16(order, round(even.wide(), odd.wide()));
                _mm512_storeu_si512(to.cast(), words);
                (from, to) = (from.wrapping_add(2 * self.line), to.wrapping_add(self.line));
            }
            reciprocal(sum).store(inverse.add(at));
        }
    }

    /// Scores become `e = 2^(factor·(s − max))` where they are; `1/Σ e` of each column is left in `inverse`.
    ///
    /// # Safety
    /// As [`Tile::exponentials_across`].
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

    /// # Safety
    /// As [`Tile::exponentials_across`].
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

    /// With the exponentials e in the tile: `p = e/Σ e`, `dS = p ⊙ (dP − Σ p·dP)`, packed as the products after it take them.
    ///
    /// # Safety
    /// As [`Tile::exponentials_across`]; what [`Gradient`] points at has the rows and lines of the tile.
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    pub unsafe fn gradient(&self, g: &Gradient) {
        for at in self.columns.clone().step_by(2 * LANES) {
            // SAFETY: two registers of each line, a multiple of 32.
            unsafe {
                let inverse = [0, LANES].map(|l| _mm512_loadu_ps(g.inverse.add(at + l)));
                let along = [0, 1].map(|v| _mm512_mul_ps(inverse[v], _mm512_loadu_ps(g.along.add(at + v * LANES))));
                for pair in 0..self.rows.div_ceil(2) {
                    let even = self.gradient_of_row(2 * pair, at, inverse, along, g);
                    let odd = if 2 * pair + 1 < self.rows {
                        self.gradient_of_row(2 * pair + 1, at, inverse, along, g)
                    } else {
                        _mm512_setzero_si512()
                    };
                    let words = interleave(even, odd);
                    for v in 0..2 {
                        _mm512_storeu_si512(g.across.add(pair * self.line + at + v * LANES).cast(), words[v]);
                    }
                }
            }
        }
    }

    /// 32 columns of a row; gives dS of them.
    ///
    /// # Safety
    /// As [`Tile::gradient`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16,avx2,fma")]
    unsafe fn gradient_of_row(&self, row: usize, at: usize, inverse: [__m512; 2], along: [__m512; 2], g: &Gradient) -> __m512i {
        let (mut p, mut ds) = ([_mm512_setzero_ps(); 2], [_mm512_setzero_ps(); 2]);
        for v in 0..2 {
            let column = at + v * LANES;
            let at = row * self.line + column;
            // SAFETY: the row and these columns exist, in the rows of dbias too.
            unsafe {
                p[v] = _mm512_mul_ps(_mm512_loadu_ps(self.s.add(at)), inverse[v]);
                ds[v] = _mm512_mul_ps(p[v], _mm512_sub_ps(_mm512_loadu_ps(g.dp.add(at)), along[v]));
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

/// 1/x of every lane.
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
