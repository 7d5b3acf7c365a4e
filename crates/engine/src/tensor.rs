//! Named arrays as plain data: the entries of a state.

use std::borrow::Cow;

use esvit_graph::Shape;

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Name.
    pub name: String,
    /// Shape.
    pub shape: Shape,
    /// Values, row-major.
    pub values: TensorValues,
}

/// Values of a [`Tensor`].
#[derive(Clone, Debug, PartialEq)]
pub enum TensorValues {
    /// Floats.
    F32(Vec<f32>),
    /// Integers: indices and counters.
    I64(Vec<i64>),
}

impl TensorValues {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            TensorValues::F32(v) => v.len(),
            TensorValues::I64(v) => v.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Borrowed values of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub enum TensorView<'a> {
    /// Floats.
    F32(&'a [f32]),
    /// Integers.
    I64(Cow<'a, [i64]>),
}

impl TensorView<'_> {
    /// A copy of the values.
    pub fn to_values(&self) -> TensorValues {
        match self {
            TensorView::F32(values) => TensorValues::F32(values.to_vec()),
            TensorView::I64(values) => TensorValues::I64(values.to_vec()),
        }
    }

    /// Values of the same type, without any element.
    pub fn to_no_values(&self) -> TensorValues {
        match self {
            TensorView::F32(_) => TensorValues::F32(Vec::new()),
            TensorView::I64(_) => TensorValues::I64(Vec::new()),
        }
    }

    /// Bytes of the values, in this machine's order.
    pub fn bytes(&self) -> &[u8] {
        match self {
            TensorView::F32(values) => bytemuck::cast_slice(values),
            TensorView::I64(values) => bytemuck::cast_slice(values),
        }
    }
}
