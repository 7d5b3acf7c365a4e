// y = x·Φ(x), dx = dy·(Φ(x) + x·φ(x)). The contract is in mod.rs.

// The rational approximation of simd::math::erf, absolute error below 3e-7.
fn erf(v: f32) -> f32 {
    let t = clamp(v, -4.0, 4.0);
    let t2 = t * t;
    var num = fma(-2.7261423e-10, t2, 2.7706814e-8);
    num = fma(num, t2, -2.101024e-6);
    num = fma(num, t2, -5.6925066e-5);
    num = fma(num, t2, -7.3499064e-4);
    num = fma(num, t2, -2.9546e-3);
    num = fma(num, t2, -1.6096033e-2);
    var den = fma(-1.4566072e-5, t2, -2.1337405e-4);
    den = fma(den, t2, -1.682827e-3);
    den = fma(den, t2, -7.373329e-3);
    den = fma(den, t2, -1.426474e-2);
    return t * num / den;
}

fn value(x: f32) -> f32 {
    return 0.5 * x * (1.0 + erf(x * 0.70710678));
}

fn gradient(x: f32, dy: f32) -> f32 {
    let cdf = 0.5 + 0.5 * erf(x * 0.70710678);
    let pdf = 0.3989423 * exp(-0.5 * x * x);
    return dy * (cdf + x * pdf);
}
