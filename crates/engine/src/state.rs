//! What a checkpoint holds, as plain data.

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

/// Name and values of a centre.
pub(crate) type Center = (&'static str, Vec<f32>);
