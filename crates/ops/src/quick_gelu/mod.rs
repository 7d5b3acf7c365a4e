//! QuickGELU, CvT's activation: `y = x·σ(1.702·x)`, σ(t) = 1/(1 + e^−t).
//!
//! - `x`, `y` any shape; `dx = dy·(σ + 1.702·x·σ·(1 − σ))`

use esvit_simd::cpu::madd;
use esvit_simd::{math, multiversion};

use crate::Case;
use crate::Input::Wave;
use crate::unary::{Saved, Unary, unary_kernels};

/// The operator.
pub const QUICK_GELU: Unary = Unary {
    name: "quick_gelu",
    gradient_name: "quick_gelu_dx",
    saved: Saved::Operand,
    value: |x| (f64::from(x) * sigma(x)) as f32,
    gradient: |x, dy| dy * (sigma(x) + f64::from(FACTOR) * f64::from(x) * sigma(x) * (1.0 - sigma(x))) as f32,
    fast: forward,
    fast_gradient: backward,
    writes_bf16x2: false,
    epilogues: None,
    kernels: unary_kernels!("quick_gelu"),
};

/// Factor of x inside σ.
const FACTOR: f32 = 1.702;

fn sigma(x: f32) -> f64 {
    1.0 / (1.0 + (-f64::from(FACTOR) * f64::from(x)).exp())
}

multiversion! {
    fn forward(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = x / (1.0 + math::exp::<FMA>(-FACTOR * x)); }
    }
}

multiversion! {
    fn backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) {
            let s = 1.0 / (1.0 + math::exp::<FMA>(-FACTOR * x));
            *dx = dy * madd::<FMA>(FACTOR * x * s, 1.0 - s, s);
        }
    }
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("both sides of zero", QUICK_GELU, vec![Wave(vec![5, 7])]),
        Case::new("more than one piece", QUICK_GELU, vec![Wave(vec![200, 96])]),
    ]
}
