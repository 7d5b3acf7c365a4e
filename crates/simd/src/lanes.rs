//! One-pass loops over slices. Sums run in a fixed number of lanes, so the order of additions, and
//! with it the result, does not depend on the width of the machine's vectors.

use crate::cpu::madd;
use crate::multiversion;

/// Partial sums every reduction accumulates in.
pub const LANES: usize = 16;

multiversion! {
    /// Sum of `x`.
    pub fn sum(x: &[f32]) -> f32 {
        let mut acc = [0.0f32; LANES];
        let (blocks, tail) = x.as_chunks::<LANES>();
        for block in blocks {
            for (a, &v) in acc.iter_mut().zip(block) { *a += v; }
        }
        for (a, &v) in acc.iter_mut().zip(tail) { *a += v; }
        acc.iter().sum()
    }
}

multiversion! {
    /// Inner product of two slices of equal length.
    pub fn dot(x: &[f32], y: &[f32]) -> f32 {
        let mut acc = [0.0f32; LANES];
        let (xs, x_tail) = x.as_chunks::<LANES>();
        let (ys, y_tail) = y.as_chunks::<LANES>();
        for (x, y) in xs.iter().zip(ys) {
            for l in 0..LANES { acc[l] = madd::<FMA>(x[l], y[l], acc[l]); }
        }
        for (l, (&x, &y)) in x_tail.iter().zip(y_tail).enumerate() { acc[l] = madd::<FMA>(x, y, acc[l]); }
        acc.iter().sum()
    }
}

/// Sum of squares in f64: norms of whole parameters, where f32 lanes would lose digits.
pub fn sum_squares(x: &[f32]) -> f64 {
    // Blocks of 4096 in f32 lanes, blocks in f64: as fast as f32, as exact as needed for a norm.
    x.chunks(4096).map(|block| dot(block, block) as f64).sum()
}

multiversion! {
    /// Largest element; −∞ for an empty slice.
    pub fn max(x: &[f32]) -> f32 {
        let mut acc = [f32::NEG_INFINITY; LANES];
        let (blocks, tail) = x.as_chunks::<LANES>();
        for block in blocks {
            for (a, &v) in acc.iter_mut().zip(block) { *a = if v > *a { v } else { *a }; }
        }
        for (a, &v) in acc.iter_mut().zip(tail) { *a = if v > *a { v } else { *a }; }
        acc.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m { v } else { m })
    }
}

multiversion! {
    /// `y += a·x`.
    pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = madd::<FMA>(a, x, *y); }
    }
}

multiversion! {
    /// `y += x`.
    pub fn accumulate(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y += x; }
    }
}

multiversion! {
    /// `z = x + a·y`.
    pub fn add_scaled(x: &[f32], a: f32, y: &[f32], z: &mut [f32]) {
        for ((z, &x), &y) in z.iter_mut().zip(x).zip(y) { *z = madd::<FMA>(a, y, x); }
    }
}

multiversion! {
    /// `y = x + a·y`.
    pub fn scale_and_add(a: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = madd::<FMA>(a, *y, x); }
    }
}

multiversion! {
    /// `y = a·x`.
    pub fn scale(a: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = a * x; }
    }
}

multiversion! {
    /// Sum of squared distances from `mean`.
    pub fn sum_squared_deviation(x: &[f32], mean: f32) -> f32 {
        let mut acc = [0.0f32; LANES];
        let (blocks, tail) = x.as_chunks::<LANES>();
        for block in blocks {
            for (a, &v) in acc.iter_mut().zip(block) { let d = v - mean; *a = madd::<FMA>(d, d, *a); }
        }
        for (a, &v) in acc.iter_mut().zip(tail) { let d = v - mean; *a = madd::<FMA>(d, d, *a); }
        acc.iter().sum()
    }
}

/// Asks for `x` to be brought into the second-level cache while something else is computed. Changes nothing else.
#[inline]
pub fn prefetch(x: &[f32]) {
    #[cfg(target_arch = "x86_64")]
    for line in x.chunks(16) {
        // SAFETY: every x86-64 CPU has the instruction, and it reads nothing that the program sees.
        unsafe { std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T1 }>(line.as_ptr().cast()) };
    }
    _ = x;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reductions_agree_with_plain_loops_at_every_tail() {
        for n in 0..70 {
            let x: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let y: Vec<f32> = (0..n).map(|i| (i as f32 * 0.71).cos()).collect();
            let close = |a: f32, b: f64| assert!((a as f64 - b).abs() < 1e-5, "n {n}: {a} not {b}");
            close(sum(&x), x.iter().map(|&v| v as f64).sum());
            close(dot(&x, &y), x.iter().zip(&y).map(|(&a, &b)| a as f64 * b as f64).sum());
            close(sum_squares(&x) as f32, x.iter().map(|&v| (v as f64).powi(2)).sum());
            close(sum_squared_deviation(&x, 0.25), x.iter().map(|&v| (v as f64 - 0.25).powi(2)).sum());
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
