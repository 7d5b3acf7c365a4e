//! Description of a product: rounding, bias, epilogue, threads.

use super::epilogue::Epilogue;
use super::matrix::{Mat, MatMut};
use crate::Pool;

/// Rounding of a product's operands. Sums and results are single precision either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rounding {
    /// No rounding.
    #[default]
    F32,
    /// To bf16 (to the nearest, ties to even) where the CPU multiplies it; no rounding elsewhere.
    Bf16,
}

/// Parameters of a product: `c = a·b`, `c = a·b + bias` or `c += a·b`, then an epilogue.
#[derive(Clone, Copy, Debug, Default)]
pub struct Product<'a> {
    /// Rounding of a and b.
    pub rounding: Rounding,
    /// Whether the product is added to the elements of c; then the bias is not used and the epilogue is the identity.
    pub accumulate: bool,
    /// Bias that is added to every row.
    pub bias: Option<&'a [f32]>,
    /// Operation on the elements of the result before they leave the cache.
    pub epilogue: Epilogue<'a>,
    /// Whether the product runs over the threads of the pool, or on the calling thread alone.
    pub parallel: bool,
    /// Memory that is read soon after the product: prefetched into the second-level cache while it runs.
    pub prefetch: &'a [f32],
}

impl Product<'_> {
    /// Asserts that bias, epilogue and the kind of the result fit.
    pub(super) fn check(&self, c: &MatMut) {
        if let Some(bias) = self.bias {
            assert!(bias.len() == c.cols, "a bias of {} for {} columns", bias.len(), c.cols);
        }
        assert!(!self.accumulate || matches!(self.epilogue, Epilogue::Identity), "no epilogue for a product that is accumulated");
        if !c.is_f32() {
            let supported = !self.accumulate && matches!(self.epilogue, Epilogue::Identity | Epilogue::GeluDerivative(_));
            assert!(supported && self.rounding == Rounding::Bf16, "a result in bf16 of a product that does not round, or of this epilogue");
        }
        self.epilogue.check(c.rows, c.cols);
    }
}

/// Multiplications from which a product is worth several threads: below, waking them costs more than they save.
pub(super) const PARALLEL_FROM: usize = 64 * 64 * 64;

/// Whether a product is worth the threads of the pool.
pub(super) fn is_worth_threads(a: &Mat, c: &MatMut, pool: &Pool) -> bool {
    pool.threads() > 1 && c.rows * c.cols * a.cols >= PARALLEL_FROM
}

/// Asserts that the shapes of a, b and c agree.
pub(super) fn check_shapes(a: &Mat, b: [usize; 2], c: &MatMut) {
    let fits = a.cols == b[0] && c.rows == a.rows && c.cols == b[1];
    assert!(fits, "gemm [{}, {}] x {b:?} into [{}, {}]", a.rows, a.cols, c.rows, c.cols);
}
