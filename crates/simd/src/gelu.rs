//! GELU in its exact form, and its derivative, over slices.
//!
//! With AVX-512 both are polynomials in pieces: 32 pieces of |x|, each a quarter wide, whose coefficients stay in registers and are picked
//! lane by lane. Elsewhere they are made of [`erf`] and [`exp`].

use crate::cpu::{Isa, isa, madd};
use crate::math::{erf, exp};
use crate::multiversion;

const FRAC_1_SQRT_2PI: f64 = 0.398_942_280_401_432_7;

/// GELU, `y = x·Φ(x)`, absolute error below 2e-7 (AVX-512) or 2e-6 (elsewhere, and only for large x).
pub fn gelu(x: &[f32], y: &mut [f32]) {
    assert!(x.len() == y.len(), "{} results of {} elements", y.len(), x.len());
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: the CPU has AVX-512; as many elements in both.
        unsafe { avx512::values(x.as_ptr(), y.as_mut_ptr(), x.len()) };
        return;
    }
    values(x, y);
}

/// Replaces each element by its GELU, as [`gelu`] computes it.
pub fn gelu_in_place(x: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: the CPU has AVX-512; each element is read before it is written.
        unsafe { avx512::values(x.as_ptr(), x.as_mut_ptr(), x.len()) };
        return;
    }
    values_in_place(x);
}

/// Backward pass of GELU, `dx = dy·(Φ(x) + x·φ(x))`, absolute error of the derivative below 3e-7.
pub fn gelu_backward(x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dx.len() && dy.len() == dx.len(), "{} results of {} and {} elements", dx.len(), x.len(), dy.len());
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: the CPU has AVX-512; as many elements in all.
        unsafe { avx512::derivatives(x.as_ptr(), dy.as_ptr(), dx.as_mut_ptr(), x.len()) };
        return;
    }
    derivatives(x, dy, dx);
}

/// Multiplies dy by the derivative of GELU at x, in place, as [`gelu_backward`] computes it.
pub fn multiply_by_gelu_derivative(x: &[f32], dy: &mut [f32]) {
    assert!(x.len() == dy.len(), "{} derivatives for {} elements", x.len(), dy.len());
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 {
        // SAFETY: the CPU has AVX-512; as many elements in both, and each is read before it is written.
        unsafe { avx512::derivatives(x.as_ptr(), dy.as_ptr(), dy.as_mut_ptr(), x.len()) };
        return;
    }
    derivatives_in_place(x, dy);
}

#[inline(always)]
fn value<const FMA: bool>(x: f32) -> f32 {
    let half = 0.5 * x;
    madd::<FMA>(half, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

multiversion! {
    fn values(x: &[f32], y: &mut [f32]) {
        for (y, &x) in y.iter_mut().zip(x) { *y = value::<FMA>(x); }
    }
}

multiversion! {
    fn values_in_place(x: &mut [f32]) {
        for x in x { *x = value::<FMA>(*x); }
    }
}

#[inline(always)]
fn derivative<const FMA: bool>(x: f32) -> f32 {
    let cdf = madd::<FMA>(0.5, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), 0.5);
    let pdf = FRAC_1_SQRT_2PI as f32 * exp::<FMA>(-0.5 * x * x);
    madd::<FMA>(x, pdf, cdf)
}

multiversion! {
    fn derivatives(x: &[f32], dy: &[f32], dx: &mut [f32]) {
        for ((dx, &x), &dy) in dx.iter_mut().zip(x).zip(dy) { *dx = dy * derivative::<FMA>(x); }
    }
}

multiversion! {
    fn derivatives_in_place(x: &[f32], dy: &mut [f32]) {
        for (dy, &x) in dy.iter_mut().zip(x) { *dy *= derivative::<FMA>(x); }
    }
}

/// Functions of a = |x| as polynomials in u = a − c, |u| ≤ 1/8, around c = 0, 1/4, …, 31/4.
mod pieces {
    use super::FRAC_1_SQRT_2PI;

    pub const COUNT: usize = 32;
    pub const WIDTH: f64 = 0.25;
    pub const DEGREE: usize = 4;

    /// Polynomials of all pieces: coefficient n of piece k at `[n][k]`.
    #[repr(align(64))]
    pub struct PiecewisePolynomial(pub [[f32; COUNT]; DEGREE + 1]);

    /// Polynomials of Φ(−a).
    pub static TAIL: PiecewisePolynomial = pieces(false);
    /// Polynomials of 1/2 − Φ(−a) + a·φ(a), the distance of the derivative from 1/2.
    pub static DERIVATIVE: PiecewisePolynomial = pieces(true);

    /// Number of terms of the Taylor series: the first that is left out is below 1e-11 of what f32 holds.
    const TERMS: usize = 20;

    const fn pieces(derivative: bool) -> PiecewisePolynomial {
        let mut pieces = PiecewisePolynomial([[0.0; COUNT]; DEGREE + 1]);
        let (mut tail, mut density) = (0.5, FRAC_1_SQRT_2PI);
        let mut k = 0;
        while k < COUNT {
            let c = k as f64 * WIDTH;
            let taylor = taylor(c, tail, density);
            let mut terms = taylor;
            if derivative {
                let mut n = 0;
                while n + 1 < TERMS {
                    let a_density = -c * (n + 1) as f64 * taylor[n + 1] - n as f64 * taylor[n]; // φ is the derivative of −Φ(−a)
                    terms[n] = a_density - taylor[n];
                    n += 1;
                }
                terms[0] += 0.5;
                terms[TERMS - 1] = 0.0;
            }
            let terms = shortened(terms);
            let mut n = 0;
            while n <= DEGREE {
                pieces.0[n][k] = terms[n] as f32;
                n += 1;
            }
            // On to the next center.
            let (mut sum, mut power) = (0.0, 1.0);
            let (mut growth, mut term) = (0.0, 1.0);
            n = 0;
            while n < TERMS {
                sum += taylor[n] * power;
                power *= WIDTH;
                growth += term; // exp(−c·w − w²/2)
                term *= -(c + WIDTH / 2.0) * WIDTH / (n + 1) as f64;
                n += 1;
            }
            (tail, density) = (sum, density * growth);
            k += 1;
        }
        pieces
    }

    /// Taylor series of Φ(−a) around c: its derivatives are ±He_n(c)·φ(c), with Hermite's polynomials.
    const fn taylor(c: f64, tail: f64, density: f64) -> [f64; TERMS] {
        let mut terms = [tail; TERMS];
        let (mut hermite, mut before) = (1.0, 0.0);
        let mut factor = -density;
        let mut n = 1;
        while n < TERMS {
            factor /= n as f64;
            terms[n] = factor * hermite;
            factor = -factor;
            (hermite, before) = (c * hermite - (n - 1) as f64 * before, hermite);
            n += 1;
        }
        terms
    }

    /// Polynomial of a lower degree, nearly the best on |u| ≤ 1/8: the highest power is replaced by what is left of it below the Chebyshev
    /// polynomial of its degree, again and again.
    const fn shortened(mut terms: [f64; TERMS]) -> [f64; TERMS] {
        const HALF: f64 = WIDTH / 2.0;
        // T_m(u / HALF), row by row.
        let mut chebyshev = [[0.0; TERMS]; TERMS];
        chebyshev[0][0] = 1.0;
        chebyshev[1][1] = 1.0 / HALF;
        let mut m = 2;
        while m < TERMS {
            let mut n = 0;
            while n <= m {
                let shifted = if n > 0 { chebyshev[m - 1][n - 1] } else { 0.0 };
                chebyshev[m][n] = 2.0 / HALF * shifted - chebyshev[m - 2][n];
                n += 1;
            }
            m += 1;
        }
        m = TERMS - 1;
        while m > DEGREE {
            let lead = terms[m] / chebyshev[m][m];
            let mut n = 0;
            while n <= m {
                terms[n] -= lead * chebyshev[m][n];
                n += 1;
            }
            m -= 1;
        }
        terms
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512 {
    //! Sixteen elements at a time. Of the instructions a third each are multiplications, additions and permutations, which have pipes of
    //! their own.

    use std::arch::x86_64::*;

    use super::pieces::{COUNT, DEGREE, DERIVATIVE, PiecewisePolynomial, TAIL, WIDTH};
    use crate::vector::x86::mask;

    /// Computes |x|, not above the last center, and its polynomial. NaN stays NaN.
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn polynomial(pieces: &PiecewisePolynomial, x: __m512) -> (__m512, __m512) {
        // Adding 1.5·2²³ quarters leaves the number of the nearest center in the low bits.
        let round = _mm512_set1_ps(12_582_912.0 * WIDTH as f32);
        let a = _mm512_min_ps(_mm512_set1_ps((COUNT - 1) as f32 * WIDTH as f32), _mm512_abs_ps(x));
        let shifted = _mm512_add_ps(a, round);
        let u = _mm512_sub_ps(a, _mm512_sub_ps(shifted, round));
        let coefficient = |n: usize| {
            // SAFETY: the coefficients are aligned, and two registers full.
            let [low, high] = [0, 16].map(|k| unsafe { _mm512_load_ps(pieces.0[n].as_ptr().add(k)) });
            _mm512_permutex2var_ps(low, _mm512_castps_si512(shifted), high)
        };
        let mut sum = coefficient(DEGREE);
        for n in (0..DEGREE).rev() {
            sum = _mm512_fmadd_ps(sum, u, coefficient(n));
        }
        (a, sum)
    }

    /// GELU of sixteen elements: x·Φ(x) = max(x, 0) − |x|·Φ(−|x|).
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn value(x: __m512) -> __m512 {
        let (a, tail) = polynomial(&TAIL, x);
        _mm512_fnmadd_ps(a, tail, _mm512_max_ps(_mm512_setzero_ps(), x))
    }

    /// Derivative of GELU at sixteen elements: Φ(x) + x·φ(x), which is odd around 1/2.
    #[inline]
    #[target_feature(enable = "avx512f")]
    pub fn derivative(x: __m512) -> __m512 {
        let (_, away) = polynomial(&DERIVATIVE, x);
        let sign = _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(i32::MIN));
        _mm512_add_ps(_mm512_castsi512_ps(_mm512_xor_si512(_mm512_castps_si512(away), sign)), _mm512_set1_ps(0.5))
    }

    /// Writes GELU of `n` elements to y.
    ///
    /// # Safety
    /// The CPU has AVX-512; `n` elements can be read and written, and results lie apart from elements or over them.
    #[target_feature(enable = "avx512f")]
    pub unsafe fn values(x: *const f32, y: *mut f32, n: usize) {
        for at in (0..n).step_by(16) {
            let mask = mask(n - at);
            // SAFETY: the mask leaves out what does not exist.
            unsafe { _mm512_mask_storeu_ps(y.add(at), mask, value(_mm512_maskz_loadu_ps(mask, x.add(at)))) };
        }
    }

    /// Writes dy times the derivative of GELU at x to dx.
    ///
    /// # Safety
    /// As [`values`].
    #[target_feature(enable = "avx512f")]
    pub unsafe fn derivatives(x: *const f32, dy: *const f32, dx: *mut f32, n: usize) {
        for at in (0..n).step_by(16) {
            let mask = mask(n - at);
            // SAFETY: the mask leaves out what does not exist.
            unsafe {
                let (x, dy) = (_mm512_maskz_loadu_ps(mask, x.add(at)), _mm512_maskz_loadu_ps(mask, dy.add(at)));
                _mm512_mask_storeu_ps(dx.add(at), mask, _mm512_mul_ps(dy, derivative(x)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One version of values and derivatives with the error allowed: of this CPU, or made of erf.
    type GeluVersion = (&'static str, fn(&[f32]) -> [Vec<f32>; 2], f64);

    fn versions() -> [GeluVersion; 2] {
        [
            (
                "of this CPU",
                |x| {
                    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                    gelu(x, &mut y);
                    gelu_backward(x, &vec![1.0; x.len()], &mut dx);
                    [y, dx]
                },
                if isa() == Isa::Avx512 { 2e-7 } else { 3e-7 },
            ),
            (
                "of erf",
                |x| {
                    let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                    values(x, &mut y);
                    derivatives(x, &vec![1.0; x.len()], &mut dx);
                    [y, dx]
                },
                3e-7,
            ),
        ]
    }

    /// GELU and its derivative in double precision.
    fn exact(x: f32) -> [f64; 2] {
        let x = f64::from(x);
        let cdf = 0.5 * libm::erfc(-x / std::f64::consts::SQRT_2);
        [x * cdf, cdf + x * FRAC_1_SQRT_2PI * (-0.5 * x * x).exp()]
    }

    #[test]
    fn both_versions_are_as_accurate_as_they_say() {
        // A dense grid, and small numbers of either sign.
        let mut x: Vec<f32> = (-(1 << 20)..1 << 20).map(|i| i as f32 * (10.0 / (1 << 20) as f32)).collect();
        x.extend((0..4000).flat_map(|i| [1.0, -1.0].map(|sign| sign * (-0.02 * i as f32).exp2())));
        for (name, version, error) in versions() {
            let [y, dx] = version(&x);
            let mut worst = [0.0f64; 3];
            for ((&x, y), dx) in x.iter().zip(y).zip(dx) {
                let [value, derivative] = exact(x);
                let off = (f64::from(y) - value).abs();
                let off = [
                    off / f64::from(x.abs().max(1.0)),
                    if x.abs() < 1.0 { off / value.abs() } else { 0.0 },
                    (f64::from(dx) - derivative).abs(),
                ];
                (0..3).for_each(|i| {
                    if off[i] > worst[i] {
                        worst[i] = off[i]
                    }
                });
            }
            // At zero the relative error is none: 0 / 0.
            let allowed = [error, 4.0 * error, error];
            assert!((0..3).all(|i| worst[i] <= allowed[i]), "{name}: errors {worst:?}, allowed {allowed:?}");
        }
    }

    #[test]
    fn nothing_is_read_or_written_behind_the_end_and_infinities_are_limits() {
        for n in 0..40 {
            let x: Vec<f32> = (0..n).map(|i| i as f32 * 0.3 - 4.0).collect();
            let mut y = vec![7.0; n + 1];
            gelu(&x, &mut y[..n]);
            let mut same = x.clone();
            gelu_in_place(&mut same);
            assert_eq!(same, y[..n]);
            assert_eq!(y[n], 7.0);
            gelu_backward(&x, &x, &mut y[..n]);
            for (y, &x) in y[..n].iter().zip(&x) {
                assert!((f64::from(*y) - f64::from(x) * exact(x)[1]).abs() < 1e-6, "at {x}: {y}");
            }
            assert_eq!(y[n], 7.0);
            let mut dx = vec![1.0; n];
            multiply_by_gelu_derivative(&x, &mut dx);
            assert!(dx.iter().zip(&x).zip(&y).all(|((derivative, x), y)| (derivative * x - y).abs() < 1e-6), "{n} derivatives");
        }
        let (mut y, mut dx) = ([0.0; 3], [0.0; 3]);
        let x = [f32::INFINITY, f32::NAN, 1e30];
        gelu(&x, &mut y);
        gelu_backward(&x, &[1.0; 3], &mut dx);
        assert_eq!(y[0], x[0]);
        // The rational erf of machines without AVX-512 ends one unit in the last place below 1.
        assert!((y[2] - x[2]).abs() <= f32::EPSILON * x[2], "{}", y[2]);
        assert!(y[1].is_nan() && dx[1].is_nan(), "{y:?}, {dx:?}");
    }
}
