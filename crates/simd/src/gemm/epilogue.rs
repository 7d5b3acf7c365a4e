//! Epilogues of products, and their application to whole rows.

use crate::{gelu, lanes};

/// Epilogue of a product: an operation on its elements after the bias, while they are in the cache.
#[derive(Clone, Copy, Debug, Default)]
pub enum Epilogue<'a> {
    /// Leaves the elements as they are.
    #[default]
    Identity,
    /// Applies GELU to each element.
    Gelu,
    /// Multiplies by the derivative of GELU at the elements of a matrix of the result's shape.
    GeluDerivative(&'a [f32]),
    /// Adds a matrix of the result's shape.
    Add(&'a [f32]),
    /// Multiplies each row by a factor, then adds a matrix of the result's shape.
    Residual {
        /// Matrix that is added, of the result's shape.
        x: &'a [f32],
        /// Factor of each row.
        scale: &'a [f32],
    },
}

impl Epilogue<'_> {
    /// Applies the epilogue to rows from `first` on, each of `cols` columns.
    pub(super) fn apply(&self, first: usize, cols: usize, c: &mut [f32]) {
        let range = first * cols..first * cols + c.len();
        match *self {
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

    /// Asserts that the operands have the elements for a result of `rows × cols`.
    pub(super) fn check(&self, rows: usize, cols: usize) {
        if let Epilogue::Add(x) | Epilogue::GeluDerivative(x) | Epilogue::Residual { x, .. } = self {
            assert!(x.len() >= rows * cols, "{} elements in the epilogue of a product of {rows}x{cols}", x.len());
        }
        if let Epilogue::Residual { scale, .. } = self {
            assert!(scale.len() >= rows, "{} factors for {rows} rows", scale.len());
        }
    }
}
