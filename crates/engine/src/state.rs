//! What a checkpoint holds, as plain data.

use std::borrow::Cow;

use esvit_graph::Shape;

use crate::{LossScaler, OptimizerState};

/// A named array.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Its values, row-major.
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

/// Values of a tensor where they are.
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

    /// No values, of the same type.
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

/// A list of tensors in a [`TrainerState`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS))]
#[serde(rename_all = "camelCase")]
pub enum StatePart {
    /// The student's state dict.
    Student,
    /// The teacher's.
    Teacher,
    /// The centers.
    Loss,
    /// The optimizer's moments.
    Slots,
}

/// Everything a run needs to continue bit for bit.
#[derive(Clone, Debug, PartialEq)]
pub struct TrainerState {
    /// The student's state dict.
    pub student: Vec<Tensor>,
    /// The teacher's.
    pub teacher: Vec<Tensor>,
    /// `center` and, with the region loss, `center_grid`, each `[1, K]`.
    pub loss: Vec<Tensor>,
    /// Moments and counters.
    pub optimizer: OptimizerState,
    /// Of `mixed` on a GPU.
    pub scaler: Option<LossScaler>,
}

/// Name and values of a center.
pub(crate) type Center = (&'static str, Vec<f32>);
