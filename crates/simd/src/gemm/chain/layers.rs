//! Layers of a chain, and its sizes.

use crate::gemm::epilogue::Epilogue;
use crate::gemm::matrix::Mat;
use crate::gemm::packed::Packed;
use crate::gemm::product::{Product, Rounding};

/// Layer normalization of the rows that enter a chain.
#[derive(Clone, Copy, Debug)]
pub struct ChainNorm<'a> {
    /// Number added to the variance.
    pub eps: f32,
    /// Scale of each element.
    pub gamma: &'a [f32],
    /// Shift of each element.
    pub beta: &'a [f32],
}

/// Weight of a layer, as the operand b of a product.
#[derive(Clone, Copy)]
pub enum ChainWeight<'a> {
    /// A matrix as it is in memory.
    Plain(Mat<'a>),
    /// A matrix packed for the micro-kernels.
    Packed(&'a Packed),
}

/// Product with a weight and, if there is one, a bias that is added to every row.
#[derive(Clone, Copy)]
pub struct ChainLayer<'a> {
    /// Weight, `[in, out]`.
    pub weight: ChainWeight<'a>,
    /// Bias, `[out]`.
    pub bias: Option<&'a [f32]>,
}

impl ChainLayer<'_> {
    /// Rows and columns of the weight.
    pub(super) fn size(&self) -> [usize; 2] {
        match self.weight {
            ChainWeight::Plain(b) => [b.rows, b.cols],
            ChainWeight::Packed(b) => [b.k, b.n],
        }
    }
}

/// Layer norm, hidden layer, last layer and epilogue, applied to the rows of a matrix.
#[derive(Clone, Copy)]
pub struct Chain<'a> {
    /// Rounding of all operands of products.
    pub rounding: Rounding,
    /// Layer norm of the rows that enter, if there is one.
    pub norm: Option<ChainNorm<'a>>,
    /// Layer with GELU after it, if there is one.
    pub hidden: Option<ChainLayer<'a>>,
    /// Layer that gives the result.
    pub last: ChainLayer<'a>,
    /// Epilogue of the last layer.
    pub epilogue: Epilogue<'a>,
}

/// Sizes of a chain: its rows, and the elements of a row of its operand, of its hidden layer and of its result.
#[derive(Clone, Copy, Debug)]
pub struct ChainSizes {
    /// Number of rows.
    pub rows: usize,
    /// Elements of a row of the operand.
    pub width: usize,
    /// Elements of a hidden row, if there is a hidden layer.
    pub hidden: Option<usize>,
    /// Elements of a row of the result.
    pub out: usize,
    /// Whether rows are normalized first.
    pub norm: bool,
}

impl Chain<'_> {
    /// The product of a layer with this epilogue.
    pub(super) fn product<'b>(&self, layer: &ChainLayer<'b>, epilogue: Epilogue<'b>) -> Product<'b> {
        Product { rounding: self.rounding, bias: layer.bias, epilogue, parallel: true, ..Default::default() }
    }
}
