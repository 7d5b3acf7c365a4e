//! Layer normalization of rows into the words that products read.

use std::arch::x86_64::*;

use super::layers::ChainNorm;
use crate::gemm::blocked::blocking::LANES;
use crate::vector::x86::mask;

/// Rows normalized at once, whose sums are independent of each other.
pub(super) const ROWS_AT_ONCE: usize = 4;

/// Normalizes rows of as many elements as the scale has, and rounds them. The rest of a row's last vector of words is zero.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; rows can be read, and written in whole vectors of words.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
pub(super) unsafe fn rows<const BF16: bool>(norm: &ChainNorm, from: [*const f32; ROWS_AT_ONCE], to: [*mut u32; ROWS_AT_ONCE]) {
    let width = norm.gamma.len();
    let each = |at: usize| mask(width - at);
    let mean = {
        let mut sums = [_mm512_setzero_ps(); ROWS_AT_ONCE];
        for at in (0..width).step_by(LANES) {
            for (sum, x) in sums.iter_mut().zip(from) {
                // SAFETY: the mask leaves out what does not exist, here and below.
                *sum = _mm512_add_ps(*sum, unsafe { _mm512_maskz_loadu_ps(each(at), x.add(at)) });
            }
        }
        sums.map(|sum| _mm512_set1_ps(_mm512_reduce_add_ps(sum) / width as f32))
    };
    let scale = {
        let mut sums = [_mm512_setzero_ps(); ROWS_AT_ONCE];
        for at in (0..width).step_by(LANES) {
            for ((sum, x), mean) in sums.iter_mut().zip(from).zip(mean) {
                // SAFETY: as above.
                let away = unsafe { _mm512_maskz_sub_ps(each(at), _mm512_maskz_loadu_ps(each(at), x.add(at)), mean) };
                *sum = _mm512_fmadd_ps(away, away, *sum);
            }
        }
        sums.map(|sum| _mm512_set1_ps(1.0 / (_mm512_reduce_add_ps(sum) / width as f32 + norm.eps).sqrt()))
    };
    // Sixteen columns of all rows.
    let normalized = |at: usize| {
        let each = if at < width { each(at) } else { 0 };
        // SAFETY: as above.
        let [gamma, beta] = [norm.gamma, norm.beta].map(|v| unsafe { _mm512_maskz_loadu_ps(each, v.as_ptr().wrapping_add(at)) });
        std::array::from_fn::<_, ROWS_AT_ONCE, _>(|r| {
            // SAFETY: as above.
            let x = unsafe { _mm512_maskz_loadu_ps(each, from[r].wrapping_add(at)) };
            _mm512_maskz_fmadd_ps(each, _mm512_mul_ps(_mm512_sub_ps(x, mean[r]), scale[r]), gamma, beta)
        })
    };
    if BF16 {
        for at in (0..width).step_by(2 * LANES) {
            let (low, high) = (normalized(at), normalized(at + LANES));
            for r in 0..ROWS_AT_ONCE {
                // SAFETY: the types differ in what the bits mean only; rows are whole vectors of words.
                unsafe {
                    let words = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high[r], low[r]));
                    _mm512_storeu_si512(to[r].add(at / 2).cast(), words);
                }
            }
        }
    } else {
        for at in (0..width).step_by(LANES) {
            for (to, y) in to.iter().zip(normalized(at)) {
                // SAFETY: rows are whole vectors of words.
                unsafe { _mm512_storeu_si512(to.add(at).cast(), _mm512_castps_si512(y)) };
            }
        }
    }
}
