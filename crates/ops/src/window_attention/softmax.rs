//! Rows of scores become probabilities, and their gradients those of scores, in registers where a row fits.

use std::ops::Range;

use esvit_simd::vector::{Vector, exp};

/// Rows of scores begin at multiples of this: whole registers of every instruction set.
pub(super) const LINE: usize = 16;

/// Turns a row of scores, `N` registers, into exponentials; gives them and the inverse of their sum.
///
/// # Safety
/// The CPU has these registers; `row` and `mask` hold `N` of them.
#[inline(always)]
unsafe fn exponentials<V: Vector, const N: usize>(row: *const f32, mask: Option<*const f32>) -> ([V; N], f32) {
    // SAFETY: register v of N, by the caller's promise.
    unsafe {
        let mut e: [V; N] = std::array::from_fn(|v| V::load(row.add(v * V::LANES)));
        if let Some(mask) = mask {
            for v in 0..N {
                e[v] = e[v].add(V::load(mask.add(v * V::LANES)));
            }
        }
        let mut max = e[0];
        for v in 1..N {
            max = max.max(e[v]);
        }
        let max = V::splat(max.largest());
        let mut sum = V::splat(0.0);
        for v in 0..N {
            e[v] = exp(e[v].sub(max));
            sum = sum.add(e[v]);
        }
        (e, 1.0 / sum.sum())
    }
}

/// Rows of scores become exponentials, and `inverse` the factors that make them probabilities.
pub(super) struct Softmax<'a> {
    pub rows: Range<usize>,
    pub line: usize,
    pub p: *mut f32,
    /// The masks of all regions and the region of each row.
    pub masks: Option<(*const f32, &'a [u8])>,
}

impl Softmax<'_> {
    /// Row `i` of the mask, if there is one.
    fn mask(&self, i: usize) -> Option<*const f32> {
        self.masks.map(|(masks, region)| masks.wrapping_add(usize::from(region[i]) * self.line))
    }

    /// # Safety
    /// The CPU has these registers; p has rows of `line` floats, a multiple of [`LINE`]; `inverse` has one for each row.
    #[inline(always)]
    pub unsafe fn forward<V: Vector>(&self, inverse: &mut [f32]) {
        // SAFETY: the line has as many registers as the function is built for.
        unsafe {
            match self.line / V::LANES {
                1 => self.forward_of::<V, 1>(inverse),
                2 => self.forward_of::<V, 2>(inverse),
                4 => self.forward_of::<V, 4>(inverse),
                8 => self.forward_of::<V, 8>(inverse),
                _ => self.forward_of_any::<V>(inverse),
            }
        }
    }

    /// # Safety
    /// As [`Softmax::forward`], and a row is `N` registers.
    #[inline(always)]
    unsafe fn forward_of<V: Vector, const N: usize>(&self, inverse: &mut [f32]) {
        for i in self.rows.clone() {
            // SAFETY: row i of p, by the caller's promise.
            unsafe {
                let row = self.p.add(i * self.line);
                let (e, factor) = exponentials::<V, N>(row, self.mask(i));
                for v in 0..N {
                    e[v].store(row.add(v * V::LANES));
                }
                inverse[i] = factor;
            }
        }
    }

    /// Rows too long for registers.
    ///
    /// # Safety
    /// As [`Softmax::forward`].
    #[inline(always)]
    unsafe fn forward_of_any<V: Vector>(&self, inverse: &mut [f32]) {
        for i in self.rows.clone() {
            // SAFETY: row i of p, by the caller's promise.
            unsafe {
                let row = self.p.add(i * self.line);
                let mut max = V::splat(f32::NEG_INFINITY);
                for at in (0..self.line).step_by(V::LANES) {
                    let mut s = V::load(row.add(at));
                    if let Some(mask) = self.mask(i) {
                        s = s.add(V::load(mask.add(at)));
                        s.store(row.add(at));
                    }
                    max = max.max(s);
                }
                let max = V::splat(max.largest());
                let mut sum = V::splat(0.0);
                for at in (0..self.line).step_by(V::LANES) {
                    let e = exp(V::load(row.add(at)).sub(max));
                    e.store(row.add(at));
                    sum = sum.add(e);
                }
                inverse[i] = 1.0 / sum.sum();
            }
        }
    }

    /// Rows of scores become probabilities, `ds ← p ⊙ (ds − Σ_j p·ds)`, and that is added to `dbias`.
    ///
    /// # Safety
    /// As [`Softmax::forward`]; ds and dbias have the shape of p.
    #[inline(always)]
    pub unsafe fn gradient<V: Vector>(&self, ds: *mut f32, dbias: *mut f32, inverse: &mut [f32]) {
        // SAFETY: the line has as many registers as the function is built for.
        unsafe {
            match self.line / V::LANES {
                1 => self.gradient_of::<V, 1>(ds, dbias),
                2 => self.gradient_of::<V, 2>(ds, dbias),
                4 => self.gradient_of::<V, 4>(ds, dbias),
                8 => self.gradient_of::<V, 8>(ds, dbias),
                _ => self.gradient_of_any::<V>(ds, dbias, inverse),
            }
        }
    }

    /// # Safety
    /// As [`Softmax::gradient`], and a row is `N` registers.
    #[inline(always)]
    unsafe fn gradient_of<V: Vector, const N: usize>(&self, ds: *mut f32, dbias: *mut f32) {
        for i in self.rows.clone() {
            // SAFETY: row i of each, by the caller's promise.
            unsafe {
                let at = i * self.line;
                let (row, ds, dbias) = (self.p.add(at), ds.add(at), dbias.add(at));
                let (mut p, factor) = exponentials::<V, N>(row, self.mask(i));
                let (factor, mut along) = (V::splat(factor), V::splat(0.0));
                for v in 0..N {
                    p[v] = p[v].mul(factor);
                    p[v].store(row.add(v * V::LANES));
                    along = p[v].mul_add(V::load(ds.add(v * V::LANES)), along);
                }
                let along = V::splat(along.sum());
                for v in 0..N {
                    let at = v * V::LANES;
                    let d = p[v].mul(V::load(ds.add(at)).sub(along));
                    d.store(ds.add(at));
                    V::load(dbias.add(at)).add(d).store(dbias.add(at));
                }
            }
        }
    }

    /// Rows too long for registers.
    ///
    /// # Safety
    /// As [`Softmax::gradient`].
    #[inline(always)]
    unsafe fn gradient_of_any<V: Vector>(&self, ds: *mut f32, dbias: *mut f32, inverse: &mut [f32]) {
        // SAFETY: as this function; then row i of each.
        unsafe {
            self.forward_of_any::<V>(inverse);
            for i in self.rows.clone() {
                let at = i * self.line;
                let (p, ds, dbias) = (self.p.add(at), ds.add(at), dbias.add(at));
                let (factor, mut along) = (V::splat(inverse[i]), V::splat(0.0));
                for at in (0..self.line).step_by(V::LANES) {
                    let probability = V::load(p.add(at)).mul(factor);
                    probability.store(p.add(at));
                    along = probability.mul_add(V::load(ds.add(at)), along);
                }
                let along = V::splat(along.sum());
                for at in (0..self.line).step_by(V::LANES) {
                    let d = V::load(p.add(at)).mul(V::load(ds.add(at)).sub(along));
                    d.store(ds.add(at));
                    V::load(dbias.add(at)).add(d).store(dbias.add(at));
                }
            }
        }
    }
}
