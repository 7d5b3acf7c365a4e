//! GELU in its exact form: `y = x·Φ(x)`, Φ the normal distribution function by erf.
//!
//! - `x`, `y` any shape; `dx = dy·(Φ(x) + x·φ(x))`
//!
//! Source: Hendrycks and Gimpel 2016, <https://arxiv.org/abs/1606.08415>.

use esvit_simd::gelu;

use crate::Case;
use crate::Input::Wave;
use crate::epilogue::EpilogueKind;
use crate::unary::{Saved, Unary, unary_kernels};

/// The operator.
pub const GELU: Unary = Unary {
    name: "gelu",
    gradient_name: "gelu_dx",
    saved: Saved::Operand,
    value,
    gradient: |x, dy| dy * derivative(x),
    fast: gelu::gelu,
    fast_gradient: gelu::gelu_backward,
    writes_bf16x2: true,
    epilogues: Some(&[EpilogueKind::Gelu, EpilogueKind::GeluDerivative]),
    kernels: unary_kernels!("gelu"),
};

/// GELU of one element, as it is defined.
pub(crate) fn value(x: f32) -> f32 {
    (x as f64 * normal_cdf(x as f64)) as f32
}

/// Derivative of GELU at one element.
pub(crate) fn derivative(x: f32) -> f32 {
    let x = x as f64;
    let pdf = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
    (normal_cdf(x) + x * pdf) as f32
}

/// Φ(x) by the power series of erf, summed in f64; ±6 is 0 or 1 to f32.
fn normal_cdf(x: f64) -> f64 {
    let t = (x / std::f64::consts::SQRT_2).clamp(-5.0, 5.0);
    let (mut term, mut sum) = (t, t);
    for n in 1..200 {
        term *= -t * t / n as f64;
        sum += term / (2 * n + 1) as f64;
    }
    0.5 * (1.0 + sum * 2.0 / std::f64::consts::PI.sqrt())
}

/// Inputs worth trying.
pub fn cases() -> Vec<Case> {
    vec![
        Case::new("around zero, where the derivative changes", GELU, vec![Wave(vec![7, 9])]),
        Case::new("more than one piece", GELU, vec![Wave(vec![100, 96])]),
    ]
}
