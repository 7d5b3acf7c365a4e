//! AVX2 and AVX-512 registers of [`super::Vector`].

use std::arch::x86_64::*;

use super::{Vector, VectorKernel};

/// Mask of the first `n` of sixteen lanes, or of all of them.
pub(crate) fn mask(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// AVX2 register of eight floats.
#[derive(Clone, Copy)]
pub struct F32x8(pub(crate) __m256);

/// AVX-512 register of sixteen floats.
#[derive(Clone, Copy)]
pub struct F32x16(pub(crate) __m512);

/// Copies past the caches for [`super::stream`].
///
/// # Safety
/// As many floats in both, and whole cache lines in `to`.
#[target_feature(enable = "avx512f")]
pub unsafe fn stream(from: &[f32], to: &mut [f32]) {
    for at in (0..to.len()).step_by(16) {
        // SAFETY: sixteen floats of each, at a multiple of 64 bytes.
        unsafe { _mm512_stream_ps(to.as_mut_ptr().add(at), _mm512_loadu_ps(from.as_ptr().add(at))) };
    }
}

#[target_feature(enable = "avx2,fma")]
fn with_avx2<K: VectorKernel>(kernel: K) -> K::Output {
    kernel.run::<F32x8>()
}

#[target_feature(enable = "avx512f,avx2,fma")]
fn with_avx512<K: VectorKernel>(kernel: K) -> K::Output {
    kernel.run::<F32x16>()
}

/// Operations that are one instruction each. A value of the type proves that the CPU has them.
macro_rules! operations {
    ($($name:ident($($arg:ident),*) = $intrinsic:ident($($operand:ident),*);)*) => {$(
        #[inline(always)]
        fn $name(self $(, $arg: Self)*) -> Self {
            let x = self.0;
            $(let $arg = $arg.0;)*
            // SAFETY: `self` exists, so the CPU has the instruction set.
            Self(unsafe { $intrinsic(x, $($operand),*) })
        }
    )*};
}

impl Vector for F32x8 {
    const LANES: usize = 8;
    const ROWS: usize = 6;
    type Narrow = F32x8;

    unsafe fn call<K: VectorKernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's promise.
        unsafe { with_avx2(kernel) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise, here and in the functions below.
        F32x8(unsafe { _mm256_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        F32x8(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    operations! {
        mul_add(b, c) = _mm256_fmadd_ps(b, c);
        add(b) = _mm256_add_ps(b);
        sub(b) = _mm256_sub_ps(b);
        mul(b) = _mm256_mul_ps(b);
        max(b) = _mm256_max_ps(b);
    }
    #[inline(always)]
    fn exponent(self, add: i32) -> Self {
        // SAFETY: `self` exists, so the CPU has AVX2.
        unsafe {
            let bits = _mm256_add_epi32(_mm256_castps_si256(self.0), _mm256_set1_epi32(add));
            F32x8(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(bits)))
        }
    }
    #[inline(always)]
    unsafe fn transpose8(rows: [*const f32; 8], scale: f32, to: *mut f32, ld: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let scale = _mm256_set1_ps(scale);
            let row = |r: usize| _mm256_mul_ps(_mm256_loadu_ps(rows[r]), scale);
            // Rows r and r + 4 side by side, so that the last step stays within 128 bits.
            let low = |r: usize| _mm256_permute2f128_ps::<0x20>(row(r), row(r + 4));
            let high = |r: usize| _mm256_permute2f128_ps::<0x31>(row(r), row(r + 4));
            let write = |c: usize, [a, b, x, y]: [__m256; 4]| {
                let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
                let (xy0, xy1) = (_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y));
                _mm256_storeu_ps(to.add(c * ld), _mm256_shuffle_ps::<0x44>(ab0, xy0));
                _mm256_storeu_ps(to.add((c + 1) * ld), _mm256_shuffle_ps::<0xEE>(ab0, xy0));
                _mm256_storeu_ps(to.add((c + 2) * ld), _mm256_shuffle_ps::<0x44>(ab1, xy1));
                _mm256_storeu_ps(to.add((c + 3) * ld), _mm256_shuffle_ps::<0xEE>(ab1, xy1));
            };
            write(0, [low(0), low(1), low(2), low(3)]);
            write(4, [high(0), high(1), high(2), high(3)]);
        }
    }
}

impl Vector for F32x16 {
    const LANES: usize = 16;
    const ROWS: usize = 8;
    type Narrow = F32x8;

    unsafe fn call<K: VectorKernel>(kernel: K) -> K::Output {
        // SAFETY: the caller's promise.
        unsafe { with_avx512(kernel) }
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        // SAFETY: the caller's promise, here and in the functions below.
        F32x16(unsafe { _mm512_set1_ps(value) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above.
        F32x16(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    operations! {
        mul_add(b, c) = _mm512_fmadd_ps(b, c);
        add(b) = _mm512_add_ps(b);
        sub(b) = _mm512_sub_ps(b);
        mul(b) = _mm512_mul_ps(b);
        max(b) = _mm512_max_ps(b);
    }
    #[inline(always)]
    fn exponent(self, add: i32) -> Self {
        // SAFETY: `self` exists, so the CPU has AVX-512F.
        unsafe {
            let bits = _mm512_add_epi32(_mm512_castps_si512(self.0), _mm512_set1_epi32(add));
            F32x16(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(bits)))
        }
    }
    #[inline(always)]
    fn total(self) -> f32 {
        // SAFETY: `self` exists, so the CPU has AVX-512F.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }
    #[inline(always)]
    fn largest(self) -> f32 {
        // SAFETY: `self` exists, so the CPU has AVX-512F.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }
    #[inline(always)]
    fn nearest(self) -> [Self; 2] {
        // SAFETY: `self` exists, so the CPU has AVX-512F.
        [F32x16(unsafe { _mm512_roundscale_ps::<0>(self.0) }); 2]
    }
    #[inline(always)]
    fn times_power(self, n: [Self; 2]) -> Self {
        // SAFETY: `self` exists, so the CPU has AVX-512F.
        F32x16(unsafe { _mm512_scalef_ps(self.0, n[1].0) })
    }
    #[inline(always)]
    unsafe fn transpose8(rows: [*const f32; 8], scale: f32, to: *mut f32, ld: usize) {
        // SAFETY: the caller's promise; AVX-512 includes AVX2.
        unsafe { F32x8::transpose8(rows, scale, to, ld) }
    }
}

/// Transposes sixteen rows of sixteen words.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn transpose(rows: &mut [__m512i; 16]) {
    let mut t = *rows;
    for i in (0..16).step_by(2) {
        t[i] = _mm512_unpacklo_epi32(rows[i], rows[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(rows[i], rows[i + 1]);
    }
    let mut s = t;
    for i in (0..16).step_by(4) {
        s[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        s[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        s[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        s[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    // s[4q + r] holds column r of each group of four columns, from rows 4q..4q + 4.
    for r in 0..4 {
        let low = _mm512_shuffle_i32x4::<0x88>(s[r], s[r + 4]); // columns r, r + 8 of rows 0..8
        let high = _mm512_shuffle_i32x4::<0x88>(s[r + 8], s[r + 12]); // ... of rows 8..16
        let odd_low = _mm512_shuffle_i32x4::<0xdd>(s[r], s[r + 4]); // columns r + 4, r + 12
        let odd_high = _mm512_shuffle_i32x4::<0xdd>(s[r + 8], s[r + 12]);
        rows[r] = _mm512_shuffle_i32x4::<0x88>(low, high);
        rows[r + 4] = _mm512_shuffle_i32x4::<0x88>(odd_low, odd_high);
        rows[r + 8] = _mm512_shuffle_i32x4::<0xdd>(low, high);
        rows[r + 12] = _mm512_shuffle_i32x4::<0xdd>(odd_low, odd_high);
    }
}
