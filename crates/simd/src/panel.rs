//! Products of matrices that fit in the caches next to the core: attention tiles, T×D by D×T.
//!
//! Rows are given by their addresses, so that tokens are read where they lie and results are written to where they belong. Columns are
//! padded to multiples of 8, so that no inner loop has a tail. Sums stay in registers over the whole inner dimension.

use crate::vector::{Vector, VectorKernel, dispatch};

/// Columns are padded to a multiple of this number.
pub const PAD: usize = 8;

/// Number of columns for `n`, rounded up to a multiple of [`PAD`].
pub const fn padded(n: usize) -> usize {
    n.div_ceil(PAD) * PAD
}

/// Product of small matrices, `out[i] = scale[i]·(init[i] + Σ_p a(i, p)·b[p])` with `a(i, p) = a[i][p·a_step]`, over `n` columns.
///
/// As many results as `a` has rows; as many terms as `b` has. A caller promises what [`PanelProduct::compute`] asks for.
#[derive(Clone, Copy)]
pub struct PanelProduct<'p> {
    /// Number of columns, a multiple of [`PAD`].
    pub n: usize,
    /// Operand a: the address of each row.
    pub a: &'p [*const f32],
    /// Distance of the elements of a row of a.
    pub a_step: usize,
    /// Operand b: the address of each row.
    pub b: &'p [*const f32],
    /// First values of the sums; zeros without.
    pub init: Option<&'p [*const f32]>,
    /// Factor of each row of results; 1 without.
    pub scale: Option<&'p [f32]>,
    /// Address of each row of results.
    pub out: &'p [*mut f32],
}

impl PanelProduct<'_> {
    /// Computes the product with these registers.
    ///
    /// # Safety
    /// The CPU has them. Every row of `a` has an element for each row of `b`; rows of `b`, `init` and `out` have `n` floats; `init`,
    /// `scale` and `out` have as many rows as `a`. No result overlaps an operand, except a row of `init` that is the same row.
    #[inline(always)]
    pub unsafe fn compute<V: Vector>(self) {
        debug_assert!(self.n.is_multiple_of(PAD) && self.out.len() == self.a.len());
        // SAFETY: the caller's promise.
        unsafe { V::call(PromisedProduct(self)) }
    }

    /// Computes the product with the widest registers of this CPU.
    ///
    /// # Safety
    /// As [`PanelProduct::compute`].
    pub unsafe fn dispatch(self) {
        dispatch(PromisedProduct(self));
    }

    /// Computes rows `i..i + MR`, all columns.
    ///
    /// # Safety
    /// As [`PanelProduct::compute`].
    #[inline(always)]
    unsafe fn rows<V: Vector, const MR: usize>(&self, i: usize) {
        let mut j = 0;
        // SAFETY: columns j..j + width are among the n, a multiple of 8; the rest is the caller's promise.
        unsafe {
            while j + 2 * V::LANES <= self.n {
                self.block::<V, MR, 2, false>(i, j);
                j += 2 * V::LANES;
            }
            match (self.n - j >= V::LANES, !(self.n - j).is_multiple_of(V::LANES)) {
                (true, true) => self.block::<V, MR, 1, true>(i, j),
                (true, false) => self.block::<V, MR, 1, false>(i, j),
                (false, true) => self.block::<V, MR, 0, true>(i, j),
                (false, false) => {}
            }
        }
    }

    /// Computes rows `i..i + MR`, `NV` registers of columns and, with `HALF`, eight more, from column `j`.
    ///
    /// # Safety
    /// As [`PanelProduct::compute`].
    #[inline(always)]
    unsafe fn block<V: Vector, const MR: usize, const NV: usize, const HALF: bool>(&self, i: usize, j: usize) {
        // SAFETY: rows i..i + MR and these columns exist, by the caller's promise.
        unsafe {
            let mut sums = [[V::splat(0.0); NV]; MR];
            let mut halves = [V::Narrow::splat(0.0); MR];
            if let Some(init) = self.init {
                for r in 0..MR {
                    let row = init.get_unchecked(i + r).add(j);
                    for v in 0..NV {
                        sums[r][v] = V::load(row.add(v * V::LANES));
                    }
                    if HALF {
                        halves[r] = V::Narrow::load(row.add(NV * V::LANES));
                    }
                }
            }
            let a: [*const f32; MR] = std::array::from_fn(|r| *self.a.get_unchecked(i + r));
            for (p, row) in self.b.iter().enumerate() {
                let row = row.add(j);
                let mut b = [V::splat(0.0); NV];
                for v in 0..NV {
                    b[v] = V::load(row.add(v * V::LANES));
                }
                let half = if HALF { V::Narrow::load(row.add(NV * V::LANES)) } else { V::Narrow::splat(0.0) };
                for r in 0..MR {
                    let value = *a[r].add(p * self.a_step);
                    let x = V::splat(value);
                    for v in 0..NV {
                        sums[r][v] = x.mul_add(b[v], sums[r][v]);
                    }
                    if HALF {
                        halves[r] = V::Narrow::splat(value).mul_add(half, halves[r]);
                    }
                }
            }
            for r in 0..MR {
                let row = self.out.get_unchecked(i + r).add(j);
                let scale = self.scale.map_or(1.0, |scale| *scale.get_unchecked(i + r));
                for v in 0..NV {
                    sums[r][v].mul(V::splat(scale)).store(row.add(v * V::LANES));
                }
                if HALF {
                    halves[r].mul(V::Narrow::splat(scale)).store(row.add(NV * V::LANES));
                }
            }
        }
    }
}

/// Product whose maker promised what [`PanelProduct::compute`] asks for.
struct PromisedProduct<'p>(PanelProduct<'p>);

impl VectorKernel for PromisedProduct<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let PromisedProduct(product) = self;
        let m = product.a.len();
        // Blocks of nearly equal height: 49 rows are seven blocks of seven.
        let blocks = m.div_ceil(V::ROWS);
        for block in 0..blocks {
            let (i, end) = (block * m / blocks, (block + 1) * m / blocks);
            // SAFETY: the maker's promise.
            unsafe {
                match end - i {
                    1 => product.rows::<V, 1>(i),
                    2 => product.rows::<V, 2>(i),
                    3 => product.rows::<V, 3>(i),
                    4 => product.rows::<V, 4>(i),
                    5 => product.rows::<V, 5>(i),
                    6 => product.rows::<V, 6>(i),
                    7 => product.rows::<V, 7>(i),
                    _ => product.rows::<V, 8>(i),
                }
            }
        }
    }
}

/// Computes the product of slices `c[m, n] (+)= a(m, k)·b[k, n]` with `a(i, p) = a[i·a_rs + p·a_cs]`; `n` a multiple of [`PAD`].
///
/// # Panics
/// When a slice is too short for its strides: a broken invariant of the caller.
#[allow(clippy::too_many_arguments)]
pub fn product(
    m: usize,
    n: usize,
    k: usize,
    a: &[f32],
    a_rs: usize,
    a_cs: usize,
    b: &[f32],
    ldb: usize,
    c: &mut [f32],
    ldc: usize,
    accumulate: bool,
) {
    if k == 0 || m == 0 || n == 0 {
        return;
    }
    assert!(n.is_multiple_of(PAD) && n <= ldb && n <= ldc);
    assert!((m - 1) * a_rs + (k - 1) * a_cs < a.len() && (k - 1) * ldb + n <= b.len() && (m - 1) * ldc + n <= c.len());
    const ROWS: usize = 64;
    for p in (0..k).step_by(ROWS) {
        let terms = ROWS.min(k - p);
        let b_rows: [*const f32; ROWS] = std::array::from_fn(|r| b[(p + r.min(terms - 1)) * ldb..].as_ptr());
        for i in (0..m).step_by(ROWS) {
            let rows = ROWS.min(m - i);
            let a_rows: [*const f32; ROWS] = std::array::from_fn(|r| a[(i + r.min(rows - 1)) * a_rs + p * a_cs..].as_ptr());
            let out: [*mut f32; ROWS] = std::array::from_fn(|r| c[(i + r.min(rows - 1)) * ldc..].as_mut_ptr());
            let init = out.map(|row| row.cast_const());
            let init = (accumulate || p > 0).then_some(&init[..rows]);
            let product = PanelProduct { n, a: &a_rows[..rows], a_step: a_cs, b: &b_rows[..terms], init, scale: None, out: &out[..rows] };
            // SAFETY: the assertions cover the last element of every row; `c` is borrowed mutably, so it is neither a nor b.
            unsafe { product.dispatch() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::PortableF32x8;

    #[test]
    fn agrees_with_three_loops_at_every_row_tail() {
        for m in (1..18).chain([49, 70]) {
            for &(n, k) in &[(8, 1), (16, 5), (24, 32), (32, 7), (40, 3), (56, 49), (64, 130)] {
                let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.3).sin()).collect();
                let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.2).cos()).collect();
                let at: Vec<f32> = (0..m * k).map(|i| a[(i % m) * k + i / m]).collect();
                let (mut c, mut ct) = (vec![0.5; m * n], vec![9.0; m * n]);
                product(m, n, k, &a, k, 1, &b, n, &mut c, n, true);
                product(m, n, k, &at, 1, m, &b, n, &mut ct, n, false);
                for i in 0..m * n {
                    let want: f64 = (0..k).map(|p| a[i / n * k + p] as f64 * b[p * n + i % n] as f64).sum();
                    assert!((c[i] as f64 - want - 0.5).abs() < 2e-5);
                    assert!((ct[i] as f64 - want).abs() < 2e-5);
                }
            }
        }
    }

    #[test]
    fn rows_scales_and_registers_of_every_kind() {
        let (m, n, k) = (11, 24, 9);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.4).cos()).collect();
        let bias: Vec<f32> = (0..m * n).map(|i| i as f32 * 0.01).collect();
        let scale: Vec<f32> = (0..m).map(|i| 1.0 + i as f32).collect();
        let rows = |x: &[f32], width: usize| -> Vec<*const f32> { x.chunks(width).map(<[f32]>::as_ptr).collect() };
        let (a_rows, b_rows, init) = (rows(&a, k), rows(&b, n), rows(&bias, n));
        let run = |plain: bool| {
            let mut c = vec![0.0; m * n];
            let out: Vec<*mut f32> = c.chunks_mut(n).map(<[f32]>::as_mut_ptr).collect();
            let product = PanelProduct { n, a: &a_rows, a_step: 1, b: &b_rows, init: Some(&init), scale: Some(&scale), out: &out };
            match plain {
                // SAFETY: rows of the right lengths, and plain floats exist everywhere.
                true => unsafe { product.compute::<PortableF32x8>() },
                // SAFETY: as above.
                false => unsafe { product.dispatch() },
            }
            c
        };
        let (plain, fast) = (run(true), run(false));
        for i in 0..m * n {
            let sum: f64 = (0..k).map(|p| a[i / n * k + p] as f64 * b[p * n + i % n] as f64).sum();
            let want = (sum + bias[i] as f64) * (1.0 + (i / n) as f64);
            assert!((plain[i] as f64 - want).abs() < 1e-4 && (fast[i] as f64 - want).abs() < 1e-4);
        }
    }
}
