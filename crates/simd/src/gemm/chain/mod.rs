//! Products behind each other, row by row: `[layer norm →] [product → GELU →] product [→ GELU or + matrix]`.
//!
//! Where the CPU has kernels of our own and weights are packed, rows are normalized to what the first product reads, and that writes what the second
//! reads; with many rows all of it stays in the caches. Elsewhere one step is done after the other.

#[cfg(target_arch = "x86_64")]
mod norm;
#[cfg(target_arch = "x86_64")]
mod own;
#[cfg(test)]
mod tests;

use super::{Epilogue, Mat, MatMut, Packed, Product, Rounding};
use crate::{Pool, lanes};

/// Layer normalization of every row.
#[derive(Clone, Copy, Debug)]
pub struct Norm<'a> {
    /// Added to the variance.
    pub eps: f32,
    /// Scale of each element.
    pub gamma: &'a [f32],
    /// Shift of each element.
    pub beta: &'a [f32],
}

/// The second operand of a product.
#[derive(Clone, Copy)]
pub enum Weight<'a> {
    /// As it is in memory.
    Plain(Mat<'a>),
    /// In the order of the kernels.
    Packed(&'a Packed),
}

/// A product with a weight, and a bias that is added to every row.
#[derive(Clone, Copy)]
pub struct Layer<'a> {
    /// `[in, out]`.
    pub weight: Weight<'a>,
    /// `[out]`.
    pub bias: Option<&'a [f32]>,
}

impl Layer<'_> {
    /// Rows and columns of the weight.
    fn size(&self) -> [usize; 2] {
        match self.weight {
            Weight::Plain(b) => [b.rows, b.cols],
            Weight::Packed(b) => [b.k, b.n],
        }
    }
}

/// What is done to the rows of a matrix.
#[derive(Clone, Copy)]
pub struct Chain<'a> {
    /// Rounding of all operands of products.
    pub rounding: Rounding,
    /// What comes first.
    pub norm: Option<Norm<'a>>,
    /// A layer with GELU behind it.
    pub hidden: Option<Layer<'a>>,
    /// The layer that gives the result.
    pub last: Layer<'a>,
    /// What follows.
    pub after: Epilogue<'a>,
}

/// Rows of a chain, and elements of a row: of its operand, hidden ones, of its result.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Rows.
    pub rows: usize,
    /// Elements of the operand's.
    pub width: usize,
    /// Hidden elements, if there is a hidden layer.
    pub hidden: Option<usize>,
    /// Elements of the result's.
    pub out: usize,
    /// Whether they are normalized first.
    pub norm: bool,
}

impl Chain<'_> {
    /// Does it over the threads of the pool; the result does not depend on their number.
    ///
    /// # Panics
    /// When the dimensions do not fit, rows of x do not lie along memory or a weight was rounded otherwise: a broken invariant of the caller.
    pub fn run(&self, x: Mat, c: MatMut, pool: &Pool) {
        let [inner, out] = self.last.size();
        let sizes = Sizes { rows: x.rows, width: x.cols, hidden: self.hidden.map(|_| inner), out, norm: self.norm.is_some() };
        assert!(x.col_stride == 1 && c.rows == x.rows && c.cols == out, "a chain of {sizes:?} into [{}, {}]", c.rows, c.cols);
        let first = self.hidden.map_or([inner, inner], |hidden| hidden.size());
        assert!(first == [x.cols, inner], "a chain of {sizes:?} with a weight {first:?}");
        if let Some(bias) = self.hidden.and_then(|hidden| hidden.bias) {
            assert!(bias.len() == inner, "a bias of {} for {sizes:?}", bias.len());
        }
        if let Some(norm) = &self.norm {
            assert!(norm.gamma.len() == x.cols && norm.beta.len() == x.cols, "a norm of {} for {sizes:?}", norm.gamma.len());
        }
        #[cfg(target_arch = "x86_64")]
        if let Some(weights) = own::Weights::of(self) {
            self.product(&self.last, self.after).check(&c);
            // SAFETY: there are packed weights, so the CPU has the features; all dimensions were compared above.
            unsafe {
                match self.rounding {
                    Rounding::F32 if own::is_worth_it::<false>(&sizes) => return own::run::<false>(self, weights, &sizes, x, c, pool),
                    Rounding::Bf16 if own::is_worth_it::<true>(&sizes) => return own::run::<true>(self, weights, &sizes, x, c, pool),
                    _ => {}
                }
            }
        }
        self.run_steps(x, c, pool);
    }

    fn product<'b>(&self, layer: &Layer<'b>, after: Epilogue<'b>) -> Product<'b> {
        Product { rounding: self.rounding, bias: layer.bias, after, parallel: true, ..Default::default() }
    }

    fn run_layer(&self, layer: &Layer, after: Epilogue, a: Mat, c: MatMut, pool: &Pool) {
        match layer.weight {
            Weight::Plain(b) => self.product(layer, after).run(a, b, c, pool),
            Weight::Packed(b) => self.product(layer, after).run_packed(a, b, c, pool),
        }
    }

    /// One step after the other.
    fn run_steps(&self, x: Mat, c: MatMut, pool: &Pool) {
        let mut normalized = pool.scratch(if self.norm.is_some() { x.rows * x.cols } else { 0 });
        let a = match &self.norm {
            Some(norm) => {
                pool.for_rows(&mut normalized, x.cols, lanes::piece_rows(x.cols), |first, rows| {
                    for (r, y) in rows.chunks_mut(x.cols).enumerate() {
                        lanes::layer_norm(&x.f32()[(first + r) * x.row_stride..][..x.cols], norm.gamma, norm.beta, norm.eps, y);
                    }
                });
                Mat::new(&normalized, x.rows, x.cols)
            }
            None => x,
        };
        let Some(first) = &self.hidden else { return self.run_layer(&self.last, self.after, a, c, pool) };
        let [_, width] = first.size();
        let mut hidden = pool.scratch(x.rows * width);
        self.run_layer(first, Epilogue::Gelu, a, MatMut::new(&mut hidden, x.rows, width), pool);
        self.run_layer(&self.last, self.after, Mat::new(&hidden, x.rows, width), c, pool);
    }
}

/// Bytes of scratch memory that a chain takes from the pool, over so many threads, at most.
pub fn chain_scratch(sizes: &Sizes, threads: usize) -> usize {
    let &Sizes { rows, width, hidden, out, norm } = sizes;
    let product = |n, k| super::scratch(rows, n, k, threads);
    // The pool may keep what the first took while the second takes more.
    let products = hidden.map_or_else(|| product(out, width), |hidden| product(hidden, width) + product(out, hidden));
    let steps = 4 * rows * (if norm { width } else { 0 } + hidden.unwrap_or(0)) + products;
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::bf16() && (norm || hidden.is_some()) {
        return steps.max(own::scratch::<false>(sizes, threads)).max(own::scratch::<true>(sizes, threads));
    }
    steps
}
