//! Products on the engine of this CPU: our blocked one, or the crate `gemm`.

use rayon::prelude::*;

#[cfg(target_arch = "x86_64")]
use super::blocked::{self, OperandB};
use super::epilogue::Epilogue;
use super::matrix::{Mat, MatMut};
use super::packed::Packed;
#[cfg(target_arch = "x86_64")]
use super::product::Rounding;
use super::product::{Product, check_shapes, is_worth_threads};
use crate::{Pool, cpu};

impl Product<'_> {
    /// Runs the product. The result does not depend on the number of threads: each element is one sum in an order that only the shapes
    /// decide.
    ///
    /// # Panics
    /// When the dimensions do not fit: a broken invariant of the caller.
    pub fn run(&self, a: Mat, b: Mat, c: MatMut, pool: &Pool) {
        check_shapes(&a, [b.rows, b.cols], &c);
        self.check(&c);
        let product = Product { parallel: self.parallel && is_worth_threads(&a, &c, pool), ..*self };
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && c.rows * c.cols * a.cols > 0 {
            // SAFETY: `cpu::bf16` said that the CPU has the features; the shapes fit.
            unsafe { product.run_blocked(a, OperandB::Plain(b), c, None, pool) };
            return;
        }
        let (rows, cols) = (c.rows, c.cols);
        let data = c.f32();
        if let Some(bias) = self.bias.filter(|_| !self.accumulate) {
            data.chunks_mut(cols.max(1)).for_each(|row| row.copy_from_slice(bias));
        }
        gemm(a, b, MatMut::new(data, rows, cols), self.accumulate || self.bias.is_some(), product.parallel.then_some(pool));
        // Pieces of any size would do; these are a part of a cache.
        const PIECE: usize = 4096;
        match (self.epilogue, product.parallel) {
            (Epilogue::Identity, _) => {}
            (epilogue, true) => {
                let rows = (PIECE / cols.max(1)).max(1);
                data.par_chunks_mut((rows * cols).max(1)).enumerate().for_each(|(i, piece)| epilogue.apply(i * rows, cols, piece));
            }
            (epilogue, false) => epilogue.apply(0, cols, data),
        }
    }

    /// Runs the product as [`Product::run`] and also sums a's rows, in single precision and without further rounding, where that costs no
    /// pass over memory: where a is packed and its rows are adjacent in memory. Elsewhere nothing is done, and the result is false.
    ///
    /// # Panics
    /// When the dimensions do not fit: a broken invariant of the caller.
    pub fn run_with_row_sums(&self, a: Mat, b: Mat, c: MatMut, row_sums: &mut [f32], pool: &Pool) -> bool {
        check_shapes(&a, [b.rows, b.cols], &c);
        self.check(&c);
        assert!(row_sums.len() == a.rows, "{} sums of {} rows", row_sums.len(), a.rows);
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && c.rows * c.cols * a.cols > 0 && a.col_stride != 1 {
            let product = Product { parallel: self.parallel && is_worth_threads(&a, &c, pool), ..*self };
            // SAFETY: `cpu::bf16` said that the CPU has the features; the shapes fit.
            unsafe { product.run_blocked(a, OperandB::Plain(b), c, Some(row_sums), pool) };
            return true;
        }
        _ = pool;
        false
    }

    /// Runs the product with a packed b. Sums over long inner dimensions are in another order than in [`Product::run`].
    ///
    /// # Panics
    /// When the dimensions do not fit or b was rounded otherwise: a broken invariant of the caller.
    pub fn run_packed(&self, a: Mat, b: &Packed, c: MatMut, pool: &Pool) {
        check_shapes(&a, [b.k, b.n], &c);
        self.check(&c);
        assert!(b.rounding == self.rounding, "a product in {:?} with an operand in {:?}", self.rounding, b.rounding);
        let product = Product { parallel: self.parallel && is_worth_threads(&a, &c, pool), ..*self };
        #[cfg(target_arch = "x86_64")]
        if c.rows > 0 {
            // SAFETY: there is a packed operand, so the CPU has the features; the shapes and the rounding fit.
            unsafe { product.run_blocked(a, OperandB::Packed(&b.words), c, None, pool) };
        }
        _ = product;
    }

    /// Runs the product on the blocked engine.
    ///
    /// # Safety
    /// As [`blocked::run`]; the shapes fit.
    #[cfg(target_arch = "x86_64")]
    pub(super) unsafe fn run_blocked(&self, a: Mat, b: OperandB, c: MatMut, row_sums: Option<&mut [f32]>, pool: &Pool) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rounding {
                Rounding::F32 => blocked::run::<false>(self, a, b, c, row_sums, pool),
                Rounding::Bf16 => blocked::run::<true>(self, a, b, c, row_sums, pool),
            }
        }
    }
}

/// Whether a product of an inner dimension of `k` that rounds can write bf16: where the blocked engine sums `k` at once, so that results
/// are rounded once.
pub fn writes_bf16x2(k: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    if cpu::bf16() {
        return blocked::sums_at_once(k);
    }
    _ = k;
    false
}

/// Bytes of scratch memory that a product of `[m, k]` and `[k, n]` takes from the pool, over so many threads, at most.
pub fn scratch(m: usize, n: usize, k: usize, threads: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if cpu::bf16() {
        return blocked::scratch(m, n, k, threads);
    }
    _ = (m, n, k, threads);
    0
}

/// Further bytes of scratch memory that [`Product::run_with_row_sums`] takes for the sums of m rows of k elements, at most.
pub fn row_sums_scratch(m: usize, k: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if cpu::bf16() {
        return blocked::row_sums_scratch(m, k);
    }
    _ = (m, k);
    0
}

/// Product of the crate `gemm`, `c = a·b`, or `c += a·b` where `accumulate`: over the threads of the pool where one is given, else on the
/// calling thread. The result does not depend on the number of threads.
///
/// # Panics
/// When the inner or outer dimensions do not fit: a broken invariant of the caller.
pub fn gemm(a: Mat, b: Mat, c: MatMut, accumulate: bool, pool: Option<&Pool>) {
    check_shapes(&a, [b.rows, b.cols], &c);
    let (rows, cols, parallel) = (c.rows, c.cols, pool.filter(|pool| is_worth_threads(&a, &c, pool)));
    let c = c.f32();
    if rows == 0 || cols == 0 {
        return;
    }
    if a.cols == 0 {
        if !accumulate {
            c.fill(0.0);
        }
        return;
    }
    let parallelism = match parallel {
        Some(pool) => gemm::Parallelism::Rayon(pool.threads()),
        None => gemm::Parallelism::None,
    };
    // SAFETY: `Mat::new` and `MatMut::new` checked that each slice holds every element its strides reach, `c` is borrowed mutably so it
    // overlaps neither input, and the shapes agree (assert above).
    unsafe {
        gemm::gemm(
            rows,
            cols,
            a.cols,
            c.as_mut_ptr(),
            1,
            cols as isize,
            accumulate,
            a.f32().as_ptr(),
            a.col_stride as isize,
            a.row_stride as isize,
            b.f32().as_ptr(),
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
