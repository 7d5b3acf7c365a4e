//! Large single-precision products: the `gemm` crate behind one function that cannot be misused.
//!
//! The crate was chosen from measurements (docs/decisions/0002-gemm.md): 60-90 % of the machine's
//! peak on Swin's shapes with AVX-512, AVX2, NEON and plain kernels on stable Rust.

use crate::Pool;

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

/// `c = a·b`, or `c += a·b` where `accumulate`. With `pool`, over its threads; without, on this one.
/// The result does not depend on the number of threads: each element is one sum in a fixed order.
///
/// # Panics
/// When the inner or outer dimensions do not fit: a broken invariant of the caller.
pub fn gemm(a: Mat, b: Mat, c: MatMut, accumulate: bool, pool: Option<&Pool>) {
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

    #[test]
    fn agrees_with_three_loops_for_every_layout_and_any_number_of_threads() {
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
