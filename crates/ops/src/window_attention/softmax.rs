//! Softmax of a tile, forward and backward. Keys are rows and queries are columns, so that lanes never mix: maxima and sums
//! are taken over rows, register by register.

use std::ops::Range;

use esvit_simd::vector::{Vector, exp};

use super::geometry::MASK;

/// A tile of scores `[keys, line]`, and the columns of it to work on: whole half registers.
pub(super) struct WindowSoftmax<'a> {
    pub keys: usize,
    pub columns: Range<usize>,
    pub line: usize,
    pub p: *mut f32,
    /// Shares of the mask from keys of each region, `[regions, line]`, and the region of each key.
    pub masks: Option<(*const f32, &'a [u8])>,
    /// First float of the gradient of each key's biases.
    pub starts: &'a [u32],
}

impl WindowSoftmax<'_> {
    /// Turns scores into exponentials, and leaves in `inverse` the factors of each column that make them probabilities.
    ///
    /// # Safety
    /// The CPU has these registers; p and the masks have rows of `line` floats, and so has `inverse`.
    #[inline(always)]
    pub unsafe fn forward<V: Vector>(&self, inverse: *mut f32) {
        // SAFETY: whole registers as long as there are some, then half of one.
        unsafe {
            let mut at = self.columns.start;
            while at + V::LANES <= self.columns.end {
                self.forward_of::<V>(at, inverse);
                at += V::LANES;
            }
            if at < self.columns.end {
                self.forward_of::<V::Narrow>(at, inverse);
            }
        }
    }

    /// Forward pass of one register of columns.
    ///
    /// # Safety
    /// As [`WindowSoftmax::forward`].
    #[inline(always)]
    unsafe fn forward_of<V: Vector>(&self, at: usize, inverse: *mut f32) {
        // SAFETY: these columns exist in every row.
        unsafe {
            let max = self.largest::<V>(at);
            let mut sum = V::splat(0.0);
            for j in 0..self.keys {
                let row = self.p.add(j * self.line + at);
                let e = exp(V::load(row).sub(max));
                e.store(row);
                sum = sum.add(e);
            }
            reciprocal(sum).store(inverse.add(at));
        }
    }

    /// Adds the mask, and gives the largest score of each column.
    ///
    /// # Safety
    /// As [`WindowSoftmax::forward`].
    #[inline(always)]
    unsafe fn largest<V: Vector>(&self, at: usize) -> V {
        // SAFETY: these columns exist in every row, of the masks too.
        unsafe {
            let mut max = V::splat(f32::NEG_INFINITY);
            for j in 0..self.keys {
                let row = self.p.add(j * self.line + at);
                let mut s = V::load(row);
                if let Some((masks, region)) = self.masks {
                    s = V::load(masks.add(usize::from(region[j]) * self.line + at)).mul_add(V::splat(MASK), s);
                    s.store(row);
                }
                max = max.max(s);
            }
            max
        }
    }

    /// Turns scores into probabilities, `ds ← p ⊙ (ds − Σ_j p·ds)`, and that is added to `dbias`.
    ///
    /// # Safety
    /// As [`WindowSoftmax::forward`]; ds has the shape of p, and dbias a row from each start on.
    #[inline(always)]
    pub unsafe fn gradient<V: Vector>(&self, ds: *mut f32, dbias: *mut f32) {
        // SAFETY: whole registers as long as there are some, then half of one.
        unsafe {
            let mut at = self.columns.start;
            while at + V::LANES <= self.columns.end {
                self.gradient_of::<V>(at, ds, dbias);
                at += V::LANES;
            }
            if at < self.columns.end {
                self.gradient_of::<V::Narrow>(at, ds, dbias);
            }
        }
    }

    /// Backward pass of one register of columns.
    ///
    /// # Safety
    /// As [`WindowSoftmax::gradient`].
    #[inline(always)]
    unsafe fn gradient_of<V: Vector>(&self, at: usize, ds: *mut f32, dbias: *mut f32) {
        // SAFETY: these columns exist in every row of each.
        unsafe {
            let max = self.largest::<V>(at);
            let (mut sum, mut along) = (V::splat(0.0), V::splat(0.0));
            for j in 0..self.keys {
                let at = j * self.line + at;
                let e = exp(V::load(self.p.add(at)).sub(max));
                e.store(self.p.add(at));
                sum = sum.add(e);
                along = e.mul_add(V::load(ds.add(at)), along);
            }
            let inverse = reciprocal(sum);
            let along = along.mul(inverse);
            for j in 0..self.keys {
                let dbias = dbias.add(self.starts[j] as usize + at);
                let at = j * self.line + at;
                let (p, ds) = (self.p.add(at), ds.add(at));
                let probability = V::load(p).mul(inverse);
                probability.store(p);
                let d = probability.mul(V::load(ds).sub(along));
                d.store(ds);
                V::load(dbias).add(d).store(dbias);
            }
        }
    }
}

/// 1/x of every lane.
///
/// # Safety
/// The CPU has these registers.
#[inline(always)]
unsafe fn reciprocal<V: Vector>(x: V) -> V {
    let mut lanes = [1.0; 16];
    // SAFETY: no register has more lanes.
    unsafe {
        x.store(lanes.as_mut_ptr());
        lanes.iter_mut().for_each(|l| *l = 1.0 / *l);
        V::load(lanes.as_ptr())
    }
}
