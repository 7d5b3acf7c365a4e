//! ReLU: `y = max(x, 0)`.
//!
//! - `x`, `y` any shape; `dx = dy` where `y > 0`, else 0: the result is kept for the backward pass, not the operand

use esvit_simd::multiversion;

use crate::Case;
use crate::Input::Apart;
use crate::unary::{Saved, Unary, unary_kernels};

/// The operator.
pub const RELU: Unary = Unary {
    name: "relu",
    gradient_name: "relu_dx",
    saved: Saved::Result,
    value: |x| if x > 0.0 { x } else { 0.0 },
    gradient: |y, dy| if y > 0.0 { dy } else { 0.0 },
    fast: forward,
    fast_gradient: backward,
    writes_bf16x2: false,
    epilogues: None,
    kernels: unary_kernels!("relu"),
};

multiversion! {
    fn forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = if x > 0.0 { x } else { 0.0 }; }
    }
}

multiversion! {
    fn backward(y: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &y), &dy) in dx.iter_mut().zip(y).zip(dy) { *dx = if y > 0.0 { dy } else { 0.0 }; }
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![Case::new("both sides of zero", RELU, vec![Apart(vec![5, 7])]), Case::new("more than one piece", RELU, vec![Apart(vec![200, 96])])]
}
