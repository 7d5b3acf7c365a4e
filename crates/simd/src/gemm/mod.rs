//! Large products of matrices: one type that cannot be misused, two engines behind it.
//!
//! Where the CPU multiplies bf16 (AVX512-BF16) the kernels are our own, for f32 and for bf16 operands; everywhere else the crate `gemm`
//! has f32 kernels for AVX-512, AVX2, NEON and plain. Both choices come from measurements: docs/decisions/0020-own-products.md.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "x86_64")]
mod product;

use crate::{Pool, cpu};

/// A matrix in a slice: `rows × cols`, element (r, c) at `r·row_stride + c·col_stride`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} in a slice of {}", data.len());
        Mat { data, rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// A row-major matrix to write to; rows may lie further apart than their length.
pub struct MatMut<'a> {
    data: &'a mut [f32],
    rows: usize,
    cols: usize,
}

impl<'a> MatMut<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} in a slice of {}", data.len());
        MatMut { data, rows, cols }
    }
}

/// How the operands of a product are rounded. Sums and results are single precision either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// Not at all.
    #[default]
    F32,
    /// To bf16 (to the nearest, ties to even) where the CPU multiplies it; not at all elsewhere.
    Bf16,
}

/// How a product is done: `c = a·b`, `c = a·b + bias` or `c += a·b`.
#[derive(Clone, Copy, Default)]
pub struct Product<'a> {
    /// Rounding of a and b.
    pub rounding: Rounding,
    /// Add to what c holds; a bias is then not used.
    pub accumulate: bool,
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Over the threads of the pool; else on this one.
    pub parallel: bool,
}

impl Product<'_> {
    /// Does it. The result does not depend on the number of threads: each element is one sum in an order that only the shapes decide.
    ///
    /// # Panics
    /// When the dimensions do not fit: a broken invariant of the caller.
    pub fn run(&self, a: Mat, b: Mat, c: MatMut, pool: &Pool) {
        fit(&a, &b, &c);
        if let Some(bias) = self.bias {
            assert!(bias.len() == c.cols, "a bias of {} for {} columns", bias.len(), c.cols);
        }
        // Below this much work waking the other threads costs more than they save.
        const PARALLEL_FROM: usize = 64 * 64 * 64;
        let parallel = self.parallel && pool.threads() > 1 && c.rows * c.cols * a.cols >= PARALLEL_FROM;
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && c.rows * c.cols * a.cols > 0 {
            let how = Product { parallel, ..*self };
            let c = &mut c.data[..c.rows * c.cols];
            // SAFETY: `cpu::bf16` said that the CPU has the features.
            unsafe {
                match self.rounding {
                    Rounding::F32 => product::run::<false>(&how, a, b, c, pool),
                    Rounding::Bf16 => product::run::<true>(&how, a, b, c, pool),
                }
            }
            return;
        }
        let (rows, cols) = (c.rows, c.cols);
        let data = &mut c.data[..rows * cols];
        if let Some(bias) = self.bias.filter(|_| !self.accumulate) {
            data.chunks_mut(cols.max(1)).for_each(|row| row.copy_from_slice(bias));
        }
        gemm(a, b, MatMut::new(data, rows, cols), self.accumulate || self.bias.is_some(), parallel.then_some(pool));
    }
}

/// Bytes of scratch memory that a product of `[m, k]` and `[k, n]` takes from the pool, over so many threads, at most.
pub fn scratch(m: usize, n: usize, k: usize, threads: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if cpu::bf16() {
        return product::scratch(m, n, k, threads);
    }
    _ = (m, n, k, threads);
    0
}

fn fit(a: &Mat, b: &Mat, c: &MatMut) {
    assert!(
        a.cols == b.rows && c.rows == a.rows && c.cols == b.cols,
        "gemm [{}, {}] x [{}, {}] into [{}, {}]",
        a.rows,
        a.cols,
        b.rows,
        b.cols,
        c.rows,
        c.cols
    );
}

/// `c = a·b`, or `c += a·b` where `accumulate`, by the crate `gemm`. With `pool`, over its threads; without, on this one.
/// The result does not depend on the number of threads.
///
/// # Panics
/// When the inner or outer dimensions do not fit: a broken invariant of the caller.
pub fn gemm(a: Mat, b: Mat, c: MatMut, accumulate: bool, pool: Option<&Pool>) {
    fit(&a, &b, &c);
    if c.rows == 0 || c.cols == 0 {
        return;
    }
    if a.cols == 0 {
        if !accumulate {
            c.data[..c.rows * c.cols].fill(0.0);
        }
        return;
    }
    // Below this much work waking the other threads costs more than they save.
    const PARALLEL_FROM: usize = 64 * 64 * 64;
    let threads = pool.map_or(1, Pool::threads);
    let parallelism =
        if threads > 1 && c.rows * c.cols * a.cols >= PARALLEL_FROM { gemm::Parallelism::Rayon(threads) } else { gemm::Parallelism::None };
    // SAFETY: `Mat::new` and `MatMut::new` checked that each slice holds every element its strides
    // reach, `c` is borrowed mutably so it overlaps neither input, and the shapes agree (assert above).
    unsafe {
        gemm::gemm(
            c.rows,
            c.cols,
            a.cols,
            c.data.as_mut_ptr(),
            1,
            c.cols as isize,
            accumulate,
            a.data.as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.data.as_ptr(),
            b.col_stride as isize,
            b.row_stride as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A matrix of waves, as it is and transposed in memory.
    struct Operand {
        plain: Vec<f32>,
        transposed: Vec<f32>,
        rows: usize,
        cols: usize,
    }

    impl Operand {
        fn new(rows: usize, cols: usize, frequency: f32) -> Operand {
            let plain: Vec<f32> = (0..rows * cols).map(|i| (i as f32 * frequency).sin()).collect();
            let transposed = (0..rows * cols).map(|i| plain[(i % rows) * cols + i / rows]).collect();
            Operand { plain, transposed, rows, cols }
        }

        fn mat(&self, transposed: bool) -> Mat<'_> {
            if transposed { Mat::new(&self.transposed, self.cols, self.rows).t() } else { Mat::new(&self.plain, self.rows, self.cols) }
        }
    }

    /// To bf16, to the nearest, ties to even.
    fn rounded(x: f32) -> f64 {
        let bits = x.to_bits();
        f64::from(f32::from_bits(bits.wrapping_add(0x7fff + (bits >> 16 & 1)) & 0xffff_0000))
    }

    /// Block tails, several chunks, shared and own packing, panels' tails, parts of a long inner dimension.
    const SHAPES: &[(usize, usize, usize)] = &[
        (1, 1, 1),
        (3, 5, 7),
        (17, 33, 9),
        (64, 96, 48),
        (130, 70, 257),
        (200, 129, 1100),
        (5, 1000, 600),
        (137, 800, 63),
        (40, 50, 5001),
        (300, 17, 2100),
    ];

    #[test]
    fn agrees_with_three_loops_in_both_roundings_for_every_layout_and_any_number_of_threads() {
        let (one, two) = (Pool::new(1).unwrap(), Pool::new(2).unwrap());
        for &(m, n, k) in SHAPES {
            let (a, b) = (Operand::new(m, k, 0.13), Operand::new(k, n, 0.07));
            let bias: Vec<f32> = (0..n).map(|j| j as f32 * 0.01 - 1.0).collect();
            for rounding in [Rounding::F32, Rounding::Bf16] {
                let round = |x: f32| if rounding == Rounding::Bf16 && cpu::bf16() { rounded(x) } else { f64::from(x) };
                let columns: Vec<Vec<f64>> = (0..n).map(|j| (0..k).map(|p| round(b.plain[p * n + j])).collect()).collect();
                let want: Vec<f64> =
                    (0..m * n).map(|i| a.plain[i / n * k..][..k].iter().zip(&columns[i % n]).map(|(&x, y)| round(x) * y).sum()).collect();
                for (a_t, b_t) in [(false, false), (false, true), (true, false), (true, true)] {
                    for kind in 0..3 {
                        let how = Product { rounding, accumulate: kind == 1, bias: (kind > 0).then_some(bias.as_slice()), parallel: true };
                        let run = |pool: &Pool, parallel: bool| {
                            let mut c = vec![3.0f32; m * n];
                            let how = Product { parallel, ..how };
                            pool.install(|| how.run(a.mat(a_t), b.mat(b_t), MatMut::new(&mut c, m, n), pool));
                            c
                        };
                        let c = run(&two, true);
                        assert_eq!(c, run(&one, true), "{m}x{n}x{k}: threads change the result");
                        assert_eq!(c, run(&two, false), "{m}x{n}x{k}: running on one thread changes the result");
                        for (i, &c) in c.iter().enumerate() {
                            let want = match kind {
                                0 => want[i],
                                1 => want[i] + 3.0,
                                _ => want[i] + f64::from(bias[i % n]),
                            };
                            let tolerance = 3e-6 * (k as f64).sqrt() + 3e-7 * want.abs();
                            assert!(
                                (f64::from(c) - want).abs() < tolerance,
                                "{rounding:?} {m}x{n}x{k} ({a_t}, {b_t}) kind {kind} at {i}: {c} not {want}"
                            );
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn takes_the_scratch_memory_it_says() {
        for &(m, n, k) in SHAPES {
            for rounding in [Rounding::F32, Rounding::Bf16] {
                let pool = Pool::new(1).unwrap();
                let (a, b) = (Operand::new(m, k, 0.1), Operand::new(k, n, 0.1));
                let mut c = vec![0.0; m * n];
                Product { rounding, parallel: true, ..Default::default() }.run(
                    a.mat(false),
                    b.mat(false),
                    MatMut::new(&mut c, m, n),
                    &pool,
                );
                assert!(pool.scratch_peak() <= scratch(m, n, k, 1), "{rounding:?} {m}x{n}x{k}: {} bytes", pool.scratch_peak());
            }
        }
    }

    #[test]
    fn the_crate_agrees_with_three_loops_for_every_layout_and_any_number_of_threads() {
        let pool = Pool::new(2).unwrap();
        for &(m, n, k) in &[(1, 1, 1), (3, 5, 7), (17, 33, 9), (64, 96, 48), (130, 70, 257)] {
            let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.13).sin()).collect();
            let b: Vec<f32> = (0..k * n).map(|i| (i as f32 * 0.07).cos()).collect();
            let bt: Vec<f32> = (0..n * k).map(|i| b[(i % k) * n + i / k]).collect();
            let at: Vec<f32> = (0..k * m).map(|i| a[(i % m) * k + i / m]).collect();
            let want: Vec<f64> =
                (0..m * n).map(|i| (0..k).map(|p| a[(i / n) * k + p] as f64 * b[p * n + i % n] as f64).sum::<f64>() + 1.0).collect();
            for (name, a, b) in [
                ("nn", Mat::new(&a, m, k), Mat::new(&b, k, n)),
                ("nt", Mat::new(&a, m, k), Mat::new(&bt, n, k).t()),
                ("tn", Mat::new(&at, k, m).t(), Mat::new(&b, k, n)),
            ] {
                let mut c1 = vec![1.0; m * n];
                let mut c2 = vec![1.0; m * n];
                gemm(a, b, MatMut::new(&mut c1, m, n), true, None);
                pool.install(|| gemm(a, b, MatMut::new(&mut c2, m, n), true, Some(&pool)));
                assert_eq!(c1, c2, "{name} {m}x{n}x{k}: threads change the result");
                for i in 0..m * n {
                    assert!((c1[i] as f64 - want[i]).abs() < 1e-4, "{name} {m}x{n}x{k} at {i}: {} not {}", c1[i], want[i]);
                }
            }
        }
    }
}
