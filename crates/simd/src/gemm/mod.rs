//! Large products of matrices: one type that cannot be misused, two engines behind it.
//!
//! Where the CPU multiplies bf16 (AVX512-BF16) the kernels are our own, for f32 and for bf16 operands; everywhere else the crate `gemm`
//! has f32 kernels for AVX-512, AVX2, NEON and plain. Both choices come from measurements: docs/decisions/0020-own-products.md.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
mod chain;
#[cfg(target_arch = "x86_64")]
mod cut;
#[cfg(target_arch = "x86_64")]
mod element;
#[cfg(target_arch = "x86_64")]
mod ends;
#[cfg(target_arch = "x86_64")]
pub(crate) mod pack;
#[cfg(target_arch = "x86_64")]
mod product;
#[cfg(test)]
mod tests;
mod tile;

pub use tile::Tile;

pub use chain::{Chain, Layer, Norm, Sizes, Weight, chain_scratch};

use rayon::prelude::*;

use crate::buffer::Buffer;
use crate::{Pool, cpu, gelu, lanes};

/// The elements of a matrix.
#[derive(Clone, Copy)]
enum Elements<'a> {
    F32(&'a [f32]),
    /// Words of two bf16 that are neighbors in memory.
    Pairs(&'a [u32]),
}

/// A matrix in a slice: `rows × cols`, element (r, c) at `r·row_stride + c·col_stride`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    data: Elements<'a>,
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} in a slice of {}", data.len());
        Mat { data: Elements::F32(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The same of bf16, an even number in each row, in words of two. Only for products that [round](Rounding::Bf16) where [`pairs`] says so: a
    /// row-major first operand or the transpose of one, or a row-major second operand.
    pub fn bf16x2(words: &'a [u32], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(2) && 2 * words.len() >= rows * cols, "matrix {rows}x{cols} in {} words", words.len());
        Mat { data: Elements::Pairs(words), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The elements in single precision.
    fn f32(&self) -> &'a [f32] {
        match self.data {
            Elements::F32(data) => data,
            Elements::Pairs(_) => panic!("a product in single precision with an operand in bf16"),
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// The same to write to.
enum ElementsMut<'a> {
    F32(&'a mut [f32]),
    Pairs(&'a mut [u32]),
}

/// A row-major matrix to write to; rows may lie further apart than their length.
pub struct MatMut<'a> {
    data: ElementsMut<'a>,
    rows: usize,
    cols: usize,
}

impl<'a> MatMut<'a> {
    /// Row-major `[rows, cols]`.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} in a slice of {}", data.len());
        MatMut { data: ElementsMut::F32(data), rows, cols }
    }

    /// The same of bf16, an even number in each row, in words of two: for products where [`pairs`] says so, alone or with a bias or a slope behind.
    pub fn bf16x2(words: &'a mut [u32], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(2) && 2 * words.len() >= rows * cols, "matrix {rows}x{cols} in {} words", words.len());
        MatMut { data: ElementsMut::Pairs(words), rows, cols }
    }

    /// Whether they are in single precision.
    fn is_f32(&self) -> bool {
        matches!(self.data, ElementsMut::F32(_))
    }

    /// The elements in single precision.
    fn f32(self) -> &'a mut [f32] {
        match self.data {
            ElementsMut::F32(data) => &mut data[..self.rows * self.cols],
            ElementsMut::Pairs(_) => panic!("a product in single precision with a result in bf16"),
        }
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

/// What is done to a product behind the bias, while it is in the cache.
#[derive(Clone, Copy, Debug, Default)]
pub enum Epilogue<'a> {
    /// Nothing.
    #[default]
    Identity,
    /// GELU of each element.
    Gelu,
    /// Multiplies by the slope of GELU at the elements of a matrix of the result's shape.
    GeluDerivative(&'a [f32]),
    /// Adds a matrix of the result's shape.
    Add(&'a [f32]),
    /// Multiplies each row by a factor of its own, then adds a matrix of the result's shape.
    Residual {
        /// The matrix.
        x: &'a [f32],
        /// The factors.
        scale: &'a [f32],
    },
}

/// How a product is done: `c = a·b`, `c = a·b + bias` or `c += a·b`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Product<'a> {
    /// Rounding of a and b.
    pub rounding: Rounding,
    /// Add to what c holds; a bias is then not used, and nothing may follow.
    pub accumulate: bool,
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// What follows.
    pub after: Epilogue<'a>,
    /// Over the threads of the pool; else on this one.
    pub parallel: bool,
    /// What is read soon after the product: brought into the second-level cache while it runs.
    pub ahead: &'a [f32],
}

/// The second operand of products, rounded and in the order in which the kernels read it: made once, used often.
#[derive(Debug)]
pub struct Packed {
    /// Words of 32 bits.
    words: Buffer,
    rounding: Rounding,
    k: usize,
    n: usize,
}

impl Packed {
    /// Packs b, over the threads of the pool this is called in; `None` where products have no order of their own to put it in.
    pub fn new(b: Mat, rounding: Rounding) -> Option<Packed> {
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && b.rows * b.cols > 0 {
            // SAFETY: `cpu::bf16` said that the CPU has the features.
            let words = unsafe {
                match rounding {
                    Rounding::F32 => product::pack::<false>(b),
                    Rounding::Bf16 => product::pack::<true>(b),
                }
            };
            return Some(Packed { words, rounding, k: b.rows, n: b.cols });
        }
        _ = (b, rounding);
        None
    }

    /// Bytes it takes.
    pub fn bytes(&self) -> usize {
        4 * self.words.len()
    }
}

/// Whether a product of an inner dimension of `k` reads and writes matrices of bf16, where it rounds: results are rounded once, behind the
/// last of their terms.
pub fn writes_bf16x2(k: usize) -> bool {
    #[cfg(target_arch = "x86_64")]
    if cpu::bf16() {
        return cut::Inner::new(k.max(1), avx512::per_step::<true>()).chunks == 1;
    }
    _ = k;
    false
}

impl Product<'_> {
    /// Does it. The result does not depend on the number of threads: each element is one sum in an order that only the shapes decide.
    ///
    /// # Panics
    /// When the dimensions do not fit: a broken invariant of the caller.
    pub fn run(&self, a: Mat, b: Mat, c: MatMut, pool: &Pool) {
        fit(&a, [b.rows, b.cols], &c);
        self.check(&c);
        let how = Product { parallel: self.parallel && worthwhile(&a, &c, pool), ..*self };
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && c.rows * c.cols * a.cols > 0 {
            // SAFETY: `cpu::bf16` said that the CPU has the features; the shapes fit.
            unsafe { how.run_own(a, product::Right::Plain(b), c, None, pool) };
            return;
        }
        let (rows, cols) = (c.rows, c.cols);
        let data = c.f32();
        if let Some(bias) = self.bias.filter(|_| !self.accumulate) {
            data.chunks_mut(cols.max(1)).for_each(|row| row.copy_from_slice(bias));
        }
        gemm(a, b, MatMut::new(data, rows, cols), self.accumulate || self.bias.is_some(), how.parallel.then_some(pool));
        // Pieces of any size would do; these are a part of a cache.
        const PIECE: usize = 4096;
        match (self.after, how.parallel) {
            (Epilogue::Identity, _) => {}
            (_, true) => {
                let rows = (PIECE / cols.max(1)).max(1);
                data.par_chunks_mut((rows * cols).max(1)).enumerate().for_each(|(i, piece)| self.finish(i * rows, cols, piece));
            }
            (_, false) => self.finish(0, cols, data),
        }
    }

    /// [`Product::run`], and the sums of a's rows, in single precision and without further rounding, where they cost no pass over memory: where a is packed, row
    /// beside row. Elsewhere nothing is done, and the answer is false.
    ///
    /// # Panics
    /// When the dimensions do not fit: a broken invariant of the caller.
    pub fn run_and_sum(&self, a: Mat, b: Mat, c: MatMut, row_sums: &mut [f32], pool: &Pool) -> bool {
        fit(&a, [b.rows, b.cols], &c);
        self.check(&c);
        assert!(row_sums.len() == a.rows, "{} sums of {} rows", row_sums.len(), a.rows);
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && c.rows * c.cols * a.cols > 0 && a.col_stride != 1 {
            let how = Product { parallel: self.parallel && worthwhile(&a, &c, pool), ..*self };
            // SAFETY: `cpu::bf16` said that the CPU has the features; the shapes fit.
            unsafe { how.run_own(a, product::Right::Plain(b), c, Some(row_sums), pool) };
            return true;
        }
        _ = pool;
        false
    }

    /// [`Product::run`] with a packed b. Sums over long inner dimensions are in another order than there.
    ///
    /// # Panics
    /// When the dimensions do not fit or b was rounded otherwise: a broken invariant of the caller.
    pub fn run_packed(&self, a: Mat, b: &Packed, c: MatMut, pool: &Pool) {
        fit(&a, [b.k, b.n], &c);
        self.check(&c);
        assert!(b.rounding == self.rounding, "a product in {:?} with an operand in {:?}", self.rounding, b.rounding);
        let how = Product { parallel: self.parallel && worthwhile(&a, &c, pool), ..*self };
        #[cfg(target_arch = "x86_64")]
        if c.rows > 0 {
            // SAFETY: there is a packed operand, so the CPU has the features; the shapes and the rounding fit.
            unsafe { how.run_own(a, product::Right::Packed(&b.words), c, None, pool) };
        }
        _ = how;
    }

    fn check(&self, c: &MatMut) {
        if let Some(bias) = self.bias {
            assert!(bias.len() == c.cols, "a bias of {} for {} columns", bias.len(), c.cols);
        }
        assert!(!self.accumulate || matches!(self.after, Epilogue::Identity), "nothing follows a product that is added up");
        if let ElementsMut::Pairs(_) = c.data {
            let alone = !self.accumulate && matches!(self.after, Epilogue::Identity | Epilogue::GeluDerivative(_));
            assert!(alone && self.rounding == Rounding::Bf16, "a result in bf16 of a product that does not round, or is not alone");
        }
        if let Epilogue::Add(x) | Epilogue::GeluDerivative(x) | Epilogue::Residual { x, .. } = self.after {
            assert!(x.len() >= c.rows * c.cols, "{} elements behind a product of {}x{}", x.len(), c.rows, c.cols);
        }
        if let Epilogue::Residual { scale, .. } = self.after {
            assert!(scale.len() >= c.rows, "{} factors for {} rows", scale.len(), c.rows);
        }
    }

    /// # Safety
    /// As [`product::run`]; the shapes fit.
    #[cfg(target_arch = "x86_64")]
    unsafe fn run_own(&self, a: Mat, b: product::Right, c: MatMut, row_sums: Option<&mut [f32]>, pool: &Pool) {
        // SAFETY: the caller's promise.
        unsafe {
            match self.rounding {
                Rounding::F32 => product::run::<false>(self, a, b, c, row_sums, pool),
                Rounding::Bf16 => product::run::<true>(self, a, b, c, row_sums, pool),
            }
        }
    }

    /// What follows on rows from `first` on, of so many columns.
    fn finish(&self, first: usize, cols: usize, c: &mut [f32]) {
        let range = first * cols..first * cols + c.len();
        match self.after {
            Epilogue::Identity => {}
            Epilogue::Gelu => gelu::gelu_in_place(c),
            Epilogue::GeluDerivative(x) => gelu::multiply_by_gelu_derivative(&x[range], c),
            Epilogue::Add(x) => lanes::accumulate(&x[range], c),
            Epilogue::Residual { x, scale } => {
                for (i, (c, x)) in c.chunks_mut(cols.max(1)).zip(x[range].chunks(cols.max(1))).enumerate() {
                    lanes::scale_and_add(scale[first + i], x, c);
                }
            }
        }
    }
}

/// Multiplications of a product that is worth several threads: below so much waking them costs more than they save.
const PARALLEL_FROM: usize = 64 * 64 * 64;

fn worthwhile(a: &Mat, c: &MatMut, pool: &Pool) -> bool {
    pool.threads() > 1 && c.rows * c.cols * a.cols >= PARALLEL_FROM
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

/// What [`Product::run_and_sum`] takes besides for the sums of m rows of k elements, at most.
pub fn row_sums_scratch(m: usize, k: usize) -> usize {
    #[cfg(target_arch = "x86_64")]
    if cpu::bf16() {
        return product::row_sums_scratch(m, k);
    }
    _ = (m, k);
    0
}

fn fit(a: &Mat, b: [usize; 2], c: &MatMut) {
    let fits = a.cols == b[0] && c.rows == a.rows && c.cols == b[1];
    assert!(fits, "gemm [{}, {}] x {b:?} into [{}, {}]", a.rows, a.cols, c.rows, c.cols);
}

/// `c = a·b`, or `c += a·b` where `accumulate`, by the crate `gemm`. With `pool`, over its threads; without, on this one.
/// The result does not depend on the number of threads.
///
/// # Panics
/// When the inner or outer dimensions do not fit: a broken invariant of the caller.
pub fn gemm(a: Mat, b: Mat, c: MatMut, accumulate: bool, pool: Option<&Pool>) {
    fit(&a, [b.rows, b.cols], &c);
    let (rows, cols, parallel) = (c.rows, c.cols, pool.filter(|pool| worthwhile(&a, &c, pool)));
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
    // SAFETY: `Mat::new` and `MatMut::new` checked that each slice holds every element its strides
    // reach, `c` is borrowed mutably so it overlaps neither input, and the shapes agree (assert above).
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
