//! Chains of products, row by row: `[layer norm →] [product → GELU →] product [→ epilogue]`.
//!
//! Where the CPU has our blocked engine and weights are packed, the chain is fused: rows are normalized to the words that the first product
//! reads, and that product writes the words that the second reads; with many rows all of it stays in the caches. Elsewhere one step is done
//! after the other.

#[cfg(target_arch = "x86_64")]
mod fused;
mod layers;
#[cfg(target_arch = "x86_64")]
mod norm;
#[cfg(test)]
mod tests;

pub use layers::{Chain, ChainLayer, ChainNorm, ChainSizes, ChainWeight};

use super::epilogue::Epilogue;
use super::matrix::{Mat, MatMut};
#[cfg(target_arch = "x86_64")]
use super::product::Rounding;
use super::run::scratch;
use crate::{Pool, lanes};

impl Chain<'_> {
    /// Runs the chain over the threads of the pool; the result does not depend on their number.
    ///
    /// # Panics
    /// When the dimensions do not fit, x is not row-major or a weight was rounded otherwise: a broken invariant of the caller.
    pub fn run(&self, x: Mat, c: MatMut, pool: &Pool) {
        let [inner, out] = self.last.size();
        let sizes = ChainSizes { rows: x.rows, width: x.cols, hidden: self.hidden.map(|_| inner), out, norm: self.norm.is_some() };
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
        if let Some(weights) = fused::FusedWeights::of(self) {
            self.product(&self.last, self.epilogue).check(&c);
            // SAFETY: there are packed weights, so the CPU has the features; all dimensions were compared above.
            unsafe {
                match self.rounding {
                    Rounding::F32 if fused::is_worth_fusing::<false>(&sizes) => {
                        return fused::run::<false>(self, weights, &sizes, x, c, pool);
                    }
                    Rounding::Bf16 if fused::is_worth_fusing::<true>(&sizes) => {
                        return fused::run::<true>(self, weights, &sizes, x, c, pool);
                    }
                    _ => {}
                }
            }
        }
        self.run_steps(x, c, pool);
    }

    /// Runs a layer as a product of its own.
    fn run_layer(&self, layer: &ChainLayer, epilogue: Epilogue, a: Mat, c: MatMut, pool: &Pool) {
        match layer.weight {
            ChainWeight::Plain(b) => self.product(layer, epilogue).run(a, b, c, pool),
            ChainWeight::Packed(b) => self.product(layer, epilogue).run_packed(a, b, c, pool),
        }
    }

    /// Runs one step after the other.
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
        let Some(first) = &self.hidden else { return self.run_layer(&self.last, self.epilogue, a, c, pool) };
        let [_, width] = first.size();
        let mut hidden = pool.scratch(x.rows * width);
        self.run_layer(first, Epilogue::Gelu, a, MatMut::new(&mut hidden, x.rows, width), pool);
        self.run_layer(&self.last, self.epilogue, Mat::new(&hidden, x.rows, width), c, pool);
    }
}

/// Bytes of scratch memory that a chain takes from the pool, over so many threads, at most.
pub fn chain_scratch(sizes: &ChainSizes, threads: usize) -> usize {
    let &ChainSizes { rows, width, hidden, out, norm } = sizes;
    let product = |n, k| scratch(rows, n, k, threads);
    // The pool may keep what the first took while the second takes more.
    let products = hidden.map_or_else(|| product(out, width), |hidden| product(hidden, width) + product(out, hidden));
    let steps = 4 * rows * (if norm { width } else { 0 } + hidden.unwrap_or(0)) + products;
    #[cfg(target_arch = "x86_64")]
    if crate::cpu::bf16() && (norm || hidden.is_some()) {
        return steps.max(fused::scratch::<false>(sizes, threads)).max(fused::scratch::<true>(sizes, threads));
    }
    steps
}
