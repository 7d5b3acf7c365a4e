//! Products of matrices that fit in the first-level cache: attention tiles, T×D by D×T.
//!
//! `C[m, n] (+)= Σ_k A(m, k)·B[k, n]`. B and C are row-major with a row stride that is a multiple of 8,
//! so the inner loop never has a tail: callers pad the columns. A has any strides, so that the
//! transposed products of the backward pass need no copies.

use crate::cpu::madd;
use crate::multiversion;

/// Columns are padded to a multiple of this.
pub const PAD: usize = 8;

/// `n` rounded up to [`PAD`].
pub const fn padded(n: usize) -> usize {
    n.div_ceil(PAD) * PAD
}

/// Strides of a product: `a(i, p) = a[i·a_rs + p·a_cs]`, rows of `b` and `c` at multiples of `ldb` and `ldc`.
#[derive(Clone, Copy)]
struct Strides {
    a_rs: usize,
    a_cs: usize,
    ldb: usize,
    ldc: usize,
}

/// One block of `MR × NR` results, held in registers over the whole inner dimension.
///
/// # Safety
/// The pointers reach `MR` rows of a with k elements, k rows of b and `MR` rows of c with `NR` elements each.
#[inline(always)]
unsafe fn block<const FMA: bool, const MR: usize, const NR: usize>(
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    s: Strides,
    accumulate: bool,
) {
    let mut acc = [[0.0f32; NR]; MR];
    for p in 0..k {
        // SAFETY: row p of b and element (i, p) of a are inside by the caller's promise.
        let (row, a) = unsafe { (&*b.add(p * s.ldb).cast::<[f32; NR]>(), a.add(p * s.a_cs)) };
        for i in 0..MR {
            // SAFETY: as above.
            let v = unsafe { *a.add(i * s.a_rs) };
            for j in 0..NR {
                acc[i][j] = madd::<FMA>(v, row[j], acc[i][j]);
            }
        }
    }
    for i in 0..MR {
        // SAFETY: row i of c is inside by the caller's promise.
        let out = unsafe { &mut *c.add(i * s.ldc).cast::<[f32; NR]>() };
        for j in 0..NR {
            out[j] = if accumulate { out[j] + acc[i][j] } else { acc[i][j] };
        }
    }
}

/// All rows of `NR` columns.
///
/// # Safety
/// As [`block`], with m rows of a and c.
#[inline(always)]
unsafe fn strip<const FMA: bool, const NR: usize>(
    m: usize,
    k: usize,
    a: *const f32,
    b: *const f32,
    c: *mut f32,
    s: Strides,
    accumulate: bool,
) {
    let mut i = 0;
    // SAFETY: rows i..i + MR are among the m rows.
    unsafe {
        while i + 6 <= m {
            block::<FMA, 6, NR>(k, a.add(i * s.a_rs), b, c.add(i * s.ldc), s, accumulate);
            i += 6;
        }
        match m - i {
            5 => block::<FMA, 5, NR>(k, a.add(i * s.a_rs), b, c.add(i * s.ldc), s, accumulate),
            4 => block::<FMA, 4, NR>(k, a.add(i * s.a_rs), b, c.add(i * s.ldc), s, accumulate),
            3 => block::<FMA, 3, NR>(k, a.add(i * s.a_rs), b, c.add(i * s.ldc), s, accumulate),
            2 => block::<FMA, 2, NR>(k, a.add(i * s.a_rs), b, c.add(i * s.ldc), s, accumulate),
            1 => block::<FMA, 1, NR>(k, a.add(i * s.a_rs), b, c.add(i * s.ldc), s, accumulate),
            _ => {}
        }
    }
}

multiversion! {
    /// `c[m, n] (+)= a(m, k)·b[k, n]` with `a(i, p) = a[i·a_rs + p·a_cs]`; `n` a multiple of [`PAD`].
    ///
    /// # Panics
    /// When a slice is too short for its strides: a broken invariant of the caller.
    pub fn product(
        m: usize, n: usize, k: usize, a: &[f32], a_rs: usize, a_cs: usize, b: &[f32], ldb: usize, c: &mut [f32], ldc: usize, accumulate: bool,
    ) {
        if k == 0 || m == 0 || n == 0 { return; }
        assert!(n.is_multiple_of(PAD) && n <= ldb && n <= ldc);
        assert!((m - 1) * a_rs + (k - 1) * a_cs < a.len() && (k - 1) * ldb + n <= b.len() && (m - 1) * ldc + n <= c.len());
        let s = Strides { a_rs, a_cs, ldb, ldc };
        let mut j = 0;
        // SAFETY: the assertions cover the last element each pointer reaches; columns j..j + NR are among the n columns.
        unsafe {
            while j + 16 <= n {
                strip::<FMA, 16>(m, k, a.as_ptr(), b.as_ptr().add(j), c.as_mut_ptr().add(j), s, accumulate);
                j += 16;
            }
            if j < n {
                strip::<FMA, 8>(m, k, a.as_ptr(), b.as_ptr().add(j), c.as_mut_ptr().add(j), s, accumulate);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_three_loops_at_every_row_tail() {
        for m in 1..14 {
            for &(n, k) in &[(8, 1), (16, 5), (24, 32), (56, 49)] {
                let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.3).sin()).collect();
                let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.2).cos()).collect();
                let at: Vec<f32> = (0..m * k).map(|i| a[(i % m) * k + i / m]).collect();
                let (mut c, mut ct) = (vec![0.5; m * n], vec![9.0; m * n]);
                product(m, n, k, &a, k, 1, &b, n, &mut c, n, true);
                product(m, n, k, &at, 1, m, &b, n, &mut ct, n, false);
                for i in 0..m * n {
                    let want: f64 = (0..k).map(|p| a[i / n * k + p] as f64 * b[p * n + i % n] as f64).sum();
                    assert!((c[i] as f64 - want - 0.5).abs() < 1e-5);
                    assert!((ct[i] as f64 - want).abs() < 1e-5);
                }
            }
        }
    }
}
