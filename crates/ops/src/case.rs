//! One list of cases for every use: parity, gradient, time, support.

use std::sync::Arc;

use esvit_graph::{DType, Op, Shape};

/// Contents of an operand.
#[derive(Clone, Debug)]
pub enum Input {
    /// Smooth values in about ±1.2, different for every operand.
    Wave(Shape),
    /// Values in [0.5, 1.5]: temperatures, variances, weights.
    Positive(Shape),
    /// Values of both signs, each at least 0.01 from every other and 0.005 from zero: for operators with kinks, whose derivative a
    /// finite step must not straddle.
    Apart(Shape),
    /// Rows of unit length.
    UnitRows(Shape),
    /// Indices below the bound.
    Index(Shape, u32),
    /// Pixels.
    Pixels(Shape),
}

impl Input {
    /// Shape of the operand.
    pub fn shape(&self) -> &Shape {
        match self {
            Input::Wave(s) | Input::Positive(s) | Input::Apart(s) | Input::UnitRows(s) | Input::Index(s, _) | Input::Pixels(s) => s,
        }
    }

    /// Type of the operand.
    pub fn dtype(&self) -> DType {
        match self {
            Input::Wave(_) | Input::Positive(_) | Input::Apart(_) | Input::UnitRows(_) => DType::F32,
            Input::Index(..) => DType::U32,
            Input::Pixels(_) => DType::U8,
        }
    }

    /// The floats of operand number `operand`.
    pub fn floats(&self, operand: usize) -> Vec<f32> {
        let n: usize = self.shape().iter().product();
        // Two incommensurable waves: no two operands, rows or columns look alike.
        let wave = |i: usize| {
            let t = i as f64 + 17.0 * operand as f64;
            ((t * 0.7391).sin() + 0.25 * (t * 2.113 + 1.0).cos()) as f32
        };
        match self {
            // A prime step visits every place once.
            Input::Apart(_) => {
                (0..n).map(|i| 0.01 * ((i * 7919 + operand) % n) as f32 - 0.005 * n as f32 + 0.005 * (1 - n % 2) as f32).collect()
            }
            Input::Positive(_) => (0..n).map(|i| 1.0 + 0.4 * wave(i)).collect(),
            Input::UnitRows(shape) => {
                let width = shape[shape.len() - 1];
                let mut values: Vec<f32> = (0..n).map(wave).collect();
                for row in values.chunks_mut(width) {
                    let norm = row.iter().map(|v| v * v).sum::<f32>().sqrt();
                    row.iter_mut().for_each(|v| *v /= norm);
                }
                values
            }
            _ => (0..n).map(wave).collect(),
        }
    }

    /// The indices of operand number `operand`.
    pub fn indices(&self, operand: usize) -> Vec<u32> {
        match self {
            Input::Index(shape, below) => {
                let n: usize = shape.iter().product();
                (0..n).map(|i| ((i as u32 + 1).wrapping_mul(2_654_435_761).wrapping_add(operand as u32) >> 7) % below).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The pixels of operand number `operand`.
    pub fn pixels(&self, operand: usize) -> Vec<u8> {
        let n: usize = self.shape().iter().product();
        (0..n).map(|i| ((i * 37 + operand * 11) % 256) as u8).collect()
    }
}

/// An operator with inputs, and the reason why they are tried.
#[derive(Clone, Debug)]
pub struct Case {
    /// Mistake that this case would catch.
    pub why: &'static str,
    /// The operator.
    pub op: Arc<dyn Op>,
    /// Operands, in order.
    pub inputs: Vec<Input>,
    /// Operands whose gradient is checked.
    pub differentiable: Vec<usize>,
}

impl Case {
    /// A case; all float operands are differentiated.
    pub fn new(why: &'static str, op: impl Op + 'static, inputs: Vec<Input>) -> Case {
        let differentiable = (0..inputs.len()).filter(|&i| inputs[i].dtype() == DType::F32).collect();
        Case { why, op: Arc::new(op), inputs, differentiable }
    }

    /// Limits the operands whose gradient is checked: the others carry none by contract.
    pub fn differentiate(mut self, operands: &[usize]) -> Case {
        self.differentiable = operands.to_vec();
        self
    }
}
