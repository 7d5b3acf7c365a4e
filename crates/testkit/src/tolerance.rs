//! Tolerances of the golden tests, in one place.
//!
//! A golden value is itself a float32 result. Its `noise`, the distance from the same computation in
//! float64, bounds what can be asked: a correct implementation lies within a small multiple of it.

use std::ops::Range;

/// Multiple of its own noise that a golden value may be missed by.
const NOISE_FACTOR: f64 = 20.0;

/// Smallest relative L2 tolerance of forward outputs; also the relative one of a digest's `l2`, and of its
/// `sum` in units of l2·√n.
pub(crate) const FORWARD: f64 = 1e-5;

/// Tolerance of one element of a forward output, in units of max(1, absmax).
const FORWARD_ELEMENT: f64 = 2e-5;

/// Smallest relative L2 tolerance of gradients and of trained parameters.
pub(crate) const GRADIENT: f64 = 1e-4;

/// A gradient below this part of its group's median l2 is zero in exact arithmetic.
pub(crate) const VANISHING: f64 = 1e-4;

/// A gradient whose float32 and float64 results differ by this much, relatively, has no correct digit: it
/// is zero in exact arithmetic. The noisiest true gradient (batch norm behind ReLU, 50 layers) stays below 0.05.
pub(crate) const NO_DIGIT: f64 = 0.5;

/// Relative tolerance of a single loss, and by how much it grows with each step of a trajectory.
pub const LOSS_STEP: f64 = 2e-6;

/// Largest relative tolerance of a loss in a trajectory.
pub const LOSS_END: f64 = 1e-5;

/// `bound`, or the multiple of the noise if that is larger.
pub(crate) fn at_least_noise(bound: f64, noise: Option<f64>) -> f64 {
    noise.map_or(bound, |noise| bound.max(NOISE_FACTOR * noise))
}

/// `bound`, unless the golden value itself misses the float64 result by more: then the multiple of its noise.
pub(crate) fn unless_noisier(bound: f64, noise: Option<f64>) -> f64 {
    noise.filter(|&noise| noise > bound).map_or(bound, |noise| NOISE_FACTOR * noise)
}

/// Absolute tolerance of one element of a forward output.
pub(crate) fn element(absmax: f64, noise: Option<f64>) -> f64 {
    unless_noisier(FORWARD_ELEMENT * absmax.max(1.0), noise)
}

/// The elements of the parameter `name` (`n` of them) that add the same number to every key's score.
///
/// The softmax takes that out again, so their gradient is rounding noise, which AdamW, dividing by its root
/// mean square, turns into steps of full length in arbitrary directions. They change no output.
pub(crate) fn key_bias(name: &str, n: usize) -> Range<usize> {
    let mut parts = name.rsplit('.');
    match (parts.next(), parts.next(), parts.next()) {
        (Some("bias"), Some("qkv"), _) | (Some("bias"), Some("pw"), Some("qkv")) => n / 3..2 * n / 3,
        (Some("bias"), Some("kv"), _) => 0..n / 2,
        _ => 0..0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_biases_are_found_by_name() {
        assert_eq!(key_bias("layers.0.blocks.1.attn.qkv.bias", 72), 24..48);
        assert_eq!(key_bias("stage0.1.layers.0.0.fn.qkv.pw.bias", 72), 24..48);
        assert_eq!(key_bias("layer1.1.attn.kv.bias", 48), 0..24);
        assert_eq!(key_bias("layers.0.blocks.1.attn.qkv.weight", 72), 0..0);
        assert_eq!(key_bias("layers.0.blocks.1.attn.proj.bias", 24), 0..0);
    }

    #[test]
    fn noise_widens_a_bound_only_where_it_says_so() {
        assert_eq!(at_least_noise(1e-5, None), 1e-5);
        assert_eq!(at_least_noise(1e-5, Some(1e-7)), 1e-5);
        assert_eq!(at_least_noise(1e-5, Some(1e-6)), NOISE_FACTOR * 1e-6);
        assert_eq!(unless_noisier(1e-5, Some(9e-6)), 1e-5);
        assert_eq!(unless_noisier(1e-5, Some(1e-4)), NOISE_FACTOR * 1e-4);
    }
}
