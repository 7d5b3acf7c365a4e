//! Conversion of f32 to 16 bits and back: f16 for values that are kept, bf16 for those that products read. Only where the CPU multiplies
//! bf16.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::*;

use crate::cpu;
#[cfg(target_arch = "x86_64")]
use crate::vector::x86::mask;

/// Rounds f32 to the nearest f16, ties to even.
///
/// # Panics
/// When the lengths differ or the CPU does not multiply bf16: broken invariants of the caller.
pub fn narrow(from: &[f32], to: &mut [u16]) {
    assert!(from.len() == to.len() && cpu::bf16());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `cpu::bf16` said that the CPU has the features.
    unsafe {
        narrow_avx512(from, to)
    };
}

/// Converts f16 to f32, exactly.
///
/// # Panics
/// As [`narrow`].
pub fn widen(from: &[u16], to: &mut [f32]) {
    assert!(from.len() == to.len() && cpu::bf16());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `cpu::bf16` said that the CPU has the features.
    unsafe {
        widen_avx512(from, to)
    };
}

/// Rounds f32 to the nearest bf16, ties to even, in words of two neighbors.
///
/// # Panics
/// As [`narrow`]; there are two elements for each word.
pub fn round(from: &[f32], to: &mut [u32]) {
    assert!(from.len() == 2 * to.len() && cpu::bf16());
    #[cfg(target_arch = "x86_64")]
    // SAFETY: `cpu::bf16` said that the CPU has the features.
    unsafe {
        round_avx512(from, to)
    };
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn round_avx512(from: &[f32], to: &mut [u32]) {
    for (from, to) in from.chunks(16).zip(to.chunks_mut(8)) {
        let mask = mask(from.len());
        // SAFETY: the mask leaves out what does not exist; the types differ in what the bits mean only.
        unsafe {
            let words = _mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(mask, from.as_ptr()));
            _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask, std::mem::transmute::<__m256bh, __m256i>(words));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn narrow_avx512(from: &[f32], to: &mut [u16]) {
    for (from, to) in from.chunks(16).zip(to.chunks_mut(16)) {
        let mask = mask(from.len());
        // SAFETY: the mask leaves out what does not exist.
        unsafe {
            let words = _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm512_maskz_loadu_ps(mask, from.as_ptr()));
            _mm256_mask_storeu_epi16(to.as_mut_ptr().cast(), mask, words);
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen_avx512(from: &[u16], to: &mut [f32]) {
    for (from, to) in from.chunks(16).zip(to.chunks_mut(16)) {
        let mask = mask(from.len());
        // SAFETY: the mask leaves out what does not exist.
        unsafe {
            let words = _mm256_maskz_loadu_epi16(mask, from.as_ptr().cast());
            _mm512_mask_storeu_ps(to.as_mut_ptr(), mask, _mm512_cvtph_ps(words));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::print_stderr)]

    use super::*;

    #[test]
    fn bf16_are_the_nearest_and_neighbors_share_a_word() {
        if !cpu::bf16() {
            eprintln!("skipped: this CPU does not multiply bf16");
            return;
        }
        for n in (0..80).step_by(2) {
            let from: Vec<f32> = (0..n).map(|i| (i as f32 * 0.7 + 0.1).sin()).collect();
            let mut to = [7; 40];
            round(&from, &mut to[..n / 2]);
            for (word, pair) in to.iter().zip(from.chunks(2)) {
                for (bits, x) in [word & 0xffff, word >> 16].into_iter().zip(pair) {
                    let off = |bits: u32| (f32::from_bits(bits << 16) - x).abs();
                    assert!(off(bits) <= off(bits + 1) && off(bits) <= off(bits.wrapping_sub(1)), "{x} is not {bits:x}");
                }
            }
            assert!(to[n / 2..].iter().all(|v| *v == 7));
        }
    }

    #[test]
    fn every_f16_survives_and_what_lies_between_goes_to_the_nearer() {
        if !cpu::bf16() {
            eprintln!("skipped: this CPU does not multiply bf16");
            return;
        }
        // Without those that are no numbers.
        let bits: Vec<u16> = (0..0x7c01).chain(0x8000..0xfc01).collect();
        let (mut wide, mut back) = (vec![0.0; bits.len()], vec![0; bits.len()]);
        widen(&bits, &mut wide);
        narrow(&wide, &mut back);
        assert_eq!(bits, back);
        assert_eq!(wide[0x3c00..0x3c02], [1.0, 1.0 + 1.0 / 1024.0]);
        for n in 0..40 {
            let mut to = [7; 40];
            narrow(&vec![1.0 + 0.7 / 1024.0; n], &mut to[..n]);
            assert!(to[..n].iter().all(|v| *v == 0x3c01) && to[n..].iter().all(|v| *v == 7));
        }
    }
}
