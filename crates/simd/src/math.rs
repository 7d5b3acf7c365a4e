//! exp and erf, accurate to a few units in the last place of f32.

use crate::cpu::madd;

/// Exponential function, relative error below 2e-7 on the normal range. Inputs below −87.3 give 0 (−∞ included), inputs above 88 give
/// exp(88): a softmax subtracts its maximum first, so neither end matters there.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOG2E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts, so that x − n·ln 2 keeps its low bits (Cody and Waite).
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    // Adding 1.5·2^23 rounds to the nearest integer, and leaves that integer in the low bits: no conversion needed.
    const ROUND: f32 = 12_582_912.0;
    let clamped = x.clamp(-87.3, 88.0);
    let shifted = madd::<FMA>(clamped, LOG2E, ROUND);
    let n = shifted - ROUND;
    let r = madd::<FMA>(n, -LN2_HI, clamped);
    let r = madd::<FMA>(n, -LN2_LO, r);
    // Minimax polynomial of (e^r − 1 − r)/r² on |r| ≤ ln2/2 (Cephes expf).
    let p = madd::<FMA>(1.987_569_1e-4, r, 1.398_2e-3);
    let p = madd::<FMA>(p, r, 8.333_452e-3);
    let p = madd::<FMA>(p, r, 4.166_579_6e-2);
    let p = madd::<FMA>(p, r, 1.666_666_5e-1);
    let p = madd::<FMA>(p, r, 5.0e-1);
    let y = madd::<FMA>(p, r * r, r) + 1.0;
    // 2^n by its exponent bits; n lies in [-126, 127] by the clamp.
    let scale = f32::from_bits(shifted.to_bits().wrapping_sub(ROUND.to_bits()).wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { y * scale }
}

/// Coefficients of P in [`erf`], highest power first.
const ERF_P: [f32; 7] = [-2.726_142_3e-10, 2.770_681_4e-8, -2.101_024e-6, -5.692_506_6e-5, -7.349_906_4e-4, -2.954_6e-3, -1.609_603_3e-2];
/// Coefficients of Q in [`erf`], highest power first.
const ERF_Q: [f32; 5] = [-1.456_607_2e-5, -2.133_740_5e-4, -1.682_827e-3, -7.373_329e-3, -1.426_474e-2];

/// Error function, absolute error below 3e-7: the rational approximation x·P(x²)/Q(x²) on |x| ≤ 4 that Eigen and XLA use; beyond, ±1 to
/// within f32.
#[inline(always)]
pub fn erf<const FMA: bool>(x: f32) -> f32 {
    let x = x.clamp(-4.0, 4.0);
    let x2 = x * x;
    let mut p = ERF_P[0];
    for coefficient in &ERF_P[1..] {
        p = madd::<FMA>(p, x2, *coefficient);
    }
    let mut q = ERF_Q[0];
    for coefficient in &ERF_Q[1..] {
        q = madd::<FMA>(q, x2, *coefficient);
    }
    x * p / q
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_accurate_where_softmax_uses_it() {
        for i in -8729..8800 {
            let x = i as f32 / 100.0;
            let want = (x as f64).exp();
            for got in [exp::<false>(x), exp::<true>(x)] {
                assert!((got as f64 - want).abs() <= 3e-7 * want, "exp({x}) = {got} not {want}");
            }
        }
        assert_eq!(exp::<false>(f32::NEG_INFINITY) + exp::<false>(-100.0), 0.0);
    }
}
