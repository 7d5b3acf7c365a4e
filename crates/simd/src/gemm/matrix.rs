//! Matrices in slices: the operands and the results of products.

/// Elements of a matrix to read.
#[derive(Clone, Copy)]
pub(super) enum Elements<'a> {
    F32(&'a [f32]),
    /// Words of two bf16 that are neighbors in memory.
    Bf16x2(&'a [u32]),
}

/// A matrix in a slice: `rows × cols`, element (r, c) at `r·row_stride + c·col_stride`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    pub(super) data: Elements<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
    pub(super) row_stride: usize,
    pub(super) col_stride: usize,
}

impl<'a> Mat<'a> {
    /// Row-major `[rows, cols]` of f32.
    pub fn new(data: &'a [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} in a slice of {}", data.len());
        Mat { data: Elements::F32(data), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// Row-major `[rows, cols]` of bf16, an even number in each row, in words of two. Only for products that round
    /// ([`Rounding::Bf16`](super::Rounding::Bf16)) on a CPU that multiplies bf16 ([`cpu::bf16`](crate::cpu::bf16)): a row-major first
    /// operand or the transpose of one, or a row-major second operand.
    pub fn bf16x2(words: &'a [u32], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(2) && 2 * words.len() >= rows * cols, "matrix {rows}x{cols} in {} words", words.len());
        Mat { data: Elements::Bf16x2(words), rows, cols, row_stride: cols, col_stride: 1 }
    }

    /// The elements in single precision.
    pub(super) fn f32(&self) -> &'a [f32] {
        match self.data {
            Elements::F32(data) => data,
            Elements::Bf16x2(_) => panic!("a product in single precision with an operand in bf16"),
        }
    }

    /// The transposed view.
    pub fn t(self) -> Self {
        Mat { rows: self.cols, cols: self.rows, row_stride: self.col_stride, col_stride: self.row_stride, ..self }
    }
}

/// Elements of a matrix to write.
pub(super) enum ElementsMut<'a> {
    F32(&'a mut [f32]),
    Bf16x2(&'a mut [u32]),
}

/// A row-major matrix to write to.
pub struct MatMut<'a> {
    pub(super) data: ElementsMut<'a>,
    pub(super) rows: usize,
    pub(super) cols: usize,
}

impl<'a> MatMut<'a> {
    /// Row-major `[rows, cols]` of f32.
    pub fn new(data: &'a mut [f32], rows: usize, cols: usize) -> Self {
        assert!(data.len() >= rows * cols, "matrix {rows}x{cols} in a slice of {}", data.len());
        MatMut { data: ElementsMut::F32(data), rows, cols }
    }

    /// Row-major `[rows, cols]` of bf16, an even number in each row, in words of two: for products where
    /// [`writes_bf16x2`](super::writes_bf16x2) says so, whose epilogue is the identity or GELU's derivative.
    pub fn bf16x2(words: &'a mut [u32], rows: usize, cols: usize) -> Self {
        assert!(cols.is_multiple_of(2) && 2 * words.len() >= rows * cols, "matrix {rows}x{cols} in {} words", words.len());
        MatMut { data: ElementsMut::Bf16x2(words), rows, cols }
    }

    /// Whether the elements are in single precision.
    pub(super) fn is_f32(&self) -> bool {
        matches!(self.data, ElementsMut::F32(_))
    }

    /// The elements in single precision.
    pub(super) fn f32(self) -> &'a mut [f32] {
        match self.data {
            ElementsMut::F32(data) => &mut data[..self.rows * self.cols],
            ElementsMut::Bf16x2(_) => panic!("a product in single precision with a result in bf16"),
        }
    }
}
