//! One-pass loops over slices. Sums run in a fixed number of lanes, so the order of additions, and with it the result, does not depend on
//! the width of the machine's vectors.

use crate::cpu::madd;
use crate::multiversion;

/// Number of partial sums in which every reduction accumulates.
pub const LANES: usize = 16;

/// Sum of the partial sums: halves are added until one is left, a short chain of dependent additions.
#[inline(always)]
fn total(acc: [f32; LANES]) -> f32 {
    let acc: [f32; 8] = std::array::from_fn(|l| acc[l] + acc[l + 8]);
    let acc: [f32; 4] = std::array::from_fn(|l| acc[l] + acc[l + 4]);
    (acc[0] + acc[2]) + (acc[1] + acc[3])
}

/// Sum of `term(v, sum)` over the elements, where `zero` adds nothing.
#[inline(always)]
fn reduce(x: &[f32], zero: f32, term: impl Fn(f32, f32) -> f32) -> f32 {
    let (blocks, tail) = x.as_chunks::<LANES>();
    let add = |acc: [f32; LANES], block: &[f32; LANES]| std::array::from_fn(|l| term(block[l], acc[l]));
    let mut acc = blocks.iter().fold([0.0; LANES], add);
    if !tail.is_empty() {
        let mut last = [zero; LANES];
        last[..tail.len()].copy_from_slice(tail);
        acc = add(acc, &last);
    }
    total(acc)
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
    /// Adds a multiple: `y += a·x`.
    pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = madd::<FMA>(a, x, *y); }
    }
}

multiversion! {
    /// Adds elementwise: `y += x`.
    pub fn accumulate(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y += x; }
    }
}

multiversion! {
    /// Adds a multiple into a third slice: `z = x + a·y`.
    pub fn add_scaled(x: &[f32], a: f32, y: &[f32], z: &mut [f32]) {
        for ((z, &x), &y) in z.iter_mut().zip(x).zip(y) { *z = madd::<FMA>(a, y, x); }
    }
}

multiversion! {
    /// Scales in place, then adds: `y = x + a·y`.
    pub fn scale_and_add(a: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = madd::<FMA>(a, *y, x); }
    }
}

multiversion! {
    /// Scales into another slice: `y = a·x`.
    pub fn scale(a: f32, x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = a * x; }
    }
}

/// Number of rows in one piece of parallel work on rows: 32 KB, so that the last stage of one image is more than one piece.
pub fn piece_rows(cols: usize) -> usize {
    (8192 / cols.max(1)).clamp(1, 64)
}

multiversion! {
    /// Layer normalization of a row: `y = (x − mean)·rstd·gamma + beta`. Returns the mean and `rstd = 1/√(variance + eps)`.
    pub fn layer_norm(x: &[f32], gamma: &[f32], beta: &[f32], eps: f32, y: &mut [f32]) -> [f32; 2] {
        let cols = y.len();
        let (x, gamma, beta) = (&x[..cols], &gamma[..cols], &beta[..cols]);
        let mean = reduce(x, 0.0, |v, sum| sum + v) / cols as f32;
        let var = reduce(x, mean, |v, sum| madd::<FMA>(v - mean, v - mean, sum)) / cols as f32;
        let rstd = 1.0 / (var + eps).sqrt();
        for c in 0..cols {
            y[c] = madd::<FMA>((x[c] - mean) * rstd, gamma[c], beta[c]);
        }
        [mean, rstd]
    }
}

/// Prefetches `x` into the second-level cache while something else is computed. Changes nothing else.
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
            close(dot(&x, &y), x.iter().zip(&y).map(|(&a, &b)| a as f64 * b as f64).sum());
            close(sum_squares(&x) as f32, x.iter().map(|&v| (v as f64).powi(2)).sum());
            let mut normalized = vec![0.0; n];
            let [mean, rstd] = layer_norm(&x, &y, &x, 0.5, &mut normalized);
            let want_mean = x.iter().map(|&v| v as f64).sum::<f64>() / n as f64;
            let var = x.iter().map(|&v| (v as f64 - want_mean).powi(2)).sum::<f64>() / n as f64;
            if n > 0 {
                close(mean, want_mean);
                close(rstd, 1.0 / (var + 0.5).sqrt());
            }
            let want = |c: usize| (x[c] as f64 - want_mean) / (var + 0.5).sqrt() * y[c] as f64 + x[c] as f64;
            normalized.iter().enumerate().for_each(|(c, &v)| close(v, want(c)));
            assert_eq!(max(&x), x.iter().copied().fold(f32::NEG_INFINITY, f32::max));
        }
    }
}
