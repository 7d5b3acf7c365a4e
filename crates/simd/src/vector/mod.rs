//! Registers: a kernel is written once over [`Vector`], built for each instruction set, and the one for this CPU is called.
//!
//! [`multiversion!`](crate::multiversion) leaves the choice of instructions to the compiler; this is for the loops where registers are
//! counted.

#[cfg(target_arch = "x86_64")]
pub(crate) mod x86;

use crate::cpu::{Isa, isa};

/// Kernel over any width of registers.
pub trait VectorKernel {
    /// Result of the kernel.
    type Output;
    /// Runs the body. Mark it `#[inline(always)]`: it is built inside a function that has the instruction set.
    fn run<V: Vector>(self) -> Self::Output;
}

/// Runs a kernel with the widest registers of this CPU.
pub fn dispatch<K: VectorKernel>(kernel: K) -> K::Output {
    match isa() {
        // SAFETY: `isa` returns Avx512 only where the CPU reported avx512f, avx2 and fma.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::F32x16::call(kernel) },
        // SAFETY: `isa` returns Avx2 only where the CPU reported avx2 and fma.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::F32x8::call(kernel) },
        // SAFETY: plain floats exist everywhere.
        _ => unsafe { PortableF32x8::call(kernel) },
    }
}

/// Prefetches `floats` floats from `from` on into the second-level cache; nothing is read there, so any address will do.
#[inline(always)]
pub fn prefetch(from: *const f32, floats: usize) {
    const LINE: usize = 16;
    #[cfg(target_arch = "x86_64")]
    for at in (0..floats).step_by(LINE) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a hint, without effect where nothing is mapped; SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(from.wrapping_add(at).cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = (from, floats, LINE);
}

/// Copies past the caches, where the CPU can: overwritten lines are not read before. Other threads see it after [`stream_end`].
///
/// # Panics
/// When the lengths differ: a broken invariant of the caller.
#[inline(always)]
pub fn stream(from: &[f32], to: &mut [f32]) {
    assert!(from.len() == to.len());
    #[cfg(target_arch = "x86_64")]
    if isa() == Isa::Avx512 && to.as_ptr().addr().is_multiple_of(64) && to.len().is_multiple_of(16) {
        // SAFETY: the CPU has AVX-512, and the target is whole cache lines.
        unsafe { x86::stream(from, to) };
        return;
    }
    to.copy_from_slice(from);
}

/// Ends a series of [`stream`]s: what they wrote is in memory before what this thread writes next.
#[inline(always)]
pub fn stream_end() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    };
}

/// Register of floats. Values are made by unsafe functions alone, so whoever holds one is on a CPU that has it.
pub trait Vector: Copy {
    /// Number of floats in a register.
    const LANES: usize;
    /// Number of rows of a block of sums that fit into the registers beside its operands, two registers a row.
    const ROWS: usize;
    /// Register of eight lanes, for the rest of a row that is a multiple of 8.
    type Narrow: Vector;

    /// Runs a kernel in a function of its own that has this instruction set.
    ///
    /// # Safety
    /// The CPU has it.
    unsafe fn call<K: VectorKernel>(kernel: K) -> K::Output;

    /// A register with `value` in every lane.
    ///
    /// # Safety
    /// The CPU has this instruction set.
    unsafe fn splat(value: f32) -> Self;

    /// Loads the floats at `from`.
    ///
    /// # Safety
    /// As [`Vector::splat`]; `LANES` floats can be read there, at any alignment.
    unsafe fn load(from: *const f32) -> Self;

    /// Stores the floats to `to`.
    ///
    /// # Safety
    /// `LANES` floats can be written there, at any alignment.
    unsafe fn store(self, to: *mut f32);

    /// Multiplies and adds, `self·b + c`, rounded once where the instruction set can.
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// Adds, `self + b`.
    fn add(self, b: Self) -> Self;
    /// Subtracts, `self − b`.
    fn sub(self, b: Self) -> Self;
    /// Multiplies, `self·b`.
    fn mul(self, b: Self) -> Self;
    /// Takes the larger of each two lanes.
    fn max(self, b: Self) -> Self;
    /// Sum of all lanes.
    #[inline(always)]
    fn total(self) -> f32 {
        self.fold(|a, b| a + b)
    }

    /// Largest lane.
    #[inline(always)]
    fn largest(self) -> f32 {
        self.fold(|a, b| if a > b { a } else { b })
    }

    /// Folds all lanes into one, by halves.
    #[inline(always)]
    fn fold(self, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; 16];
        // SAFETY: a register fits.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut n = Self::LANES;
        while n > 1 {
            n /= 2;
            for l in 0..n {
                lanes[l] = f(lanes[l], lanes[l + n]);
            }
        }
        lanes[0]
    }

    /// Shifts the lanes' bits, as integers plus `add`, to the left by 23: exponents from integers.
    fn exponent(self, add: i32) -> Self;

    /// Nearest whole number n of each lane, as [`Vector::times_power`] takes it: `n + 1.5·2²³`, whose low bits are n, and n. The first is
    /// anything where that has an instruction of its own.
    #[inline(always)]
    fn nearest(self) -> [Self; 2] {
        // SAFETY: `self` exists, so the CPU has the instruction set.
        let round = unsafe { Self::splat(ROUND) };
        let shifted = self.add(round);
        [shifted, shifted.sub(round)]
    }

    /// Multiplies by a power of two, `self·2ⁿ`.
    #[inline(always)]
    fn times_power(self, n: [Self; 2]) -> Self {
        // The low bits of the rounding constant are zero: what is left is n, and 127 makes it an exponent.
        self.mul(n[0].exponent(127))
    }

    /// Transposes and scales 8 rows of 8 floats, `to[c·ld + r] = scale·rows[r][c]`.
    ///
    /// # Safety
    /// As [`Vector::splat`]; the rows hold 8 floats, `to` can be written at 8 rows of 8.
    #[inline(always)]
    unsafe fn transpose8(rows: [*const f32; 8], scale: f32, to: *mut f32, ld: usize) {
        for (r, row) in rows.iter().enumerate() {
            for c in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(c * ld + r) = scale * *row.add(c) };
            }
        }
    }
}

/// Constant that, added to a small number, leaves its nearest whole number in the low bits.
const ROUND: f32 = 12_582_912.0;

/// Exponential function of lanes in [−∞, 88], relative error below 2e-7; below −87.3 it is 1.2e-38, nothing beside the 1 of a softmax's
/// maximum. The polynomial and the rounding of [`crate::math::exp`].
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
pub unsafe fn exp<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise.
    let of = |v: f32| unsafe { V::splat(v) };
    let x = x.max(of(-87.3));
    let shifted = x.mul_add(of(std::f32::consts::LOG2_E), of(ROUND));
    let n = shifted.sub(of(ROUND));
    let r = n.mul_add(of(-0.693_359_4), x);
    let r = n.mul_add(of(2.121_944_4e-4), r);
    let p = of(1.987_569_1e-4).mul_add(r, of(1.398_2e-3));
    let p = p.mul_add(r, of(8.333_452e-3));
    let p = p.mul_add(r, of(4.166_579_6e-2));
    let p = p.mul_add(r, of(1.666_666_5e-1));
    let p = p.mul_add(r, of(0.5));
    let y = p.mul_add(r.mul(r), r).add(of(1.0));
    y.times_power([shifted, n])
}

/// Power of 2 of lanes in [−∞, 0], relative error below 4e-6: far below the rounding to bf16. Below −126 it is 1.2e-38.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
pub unsafe fn exp2<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise.
    let of = |v: f32| unsafe { V::splat(v) };
    let x = x.max(of(-126.0));
    let n = x.nearest();
    let r = x.sub(n[1]);
    // Minimax over [−1/2, 1/2] in relative error.
    let p = of(9.575_988e-3).mul_add(r, of(5.591_835_5e-2));
    let p = p.mul_add(r, of(0.240_246));
    let p = p.mul_add(r, of(0.693_121_73));
    let p = p.mul_add(r, of(0.999_999_3));
    p.times_power(n)
}

/// Power of 2 of lanes up to 126, relative error below 3e-7. Below −126 it is 1.2e-38; NaN stays NaN.
///
/// # Safety
/// The CPU has the instruction set.
#[inline(always)]
pub unsafe fn precise_exp2<V: Vector>(x: V) -> V {
    // SAFETY: the caller's promise.
    let of = |v: f32| unsafe { V::splat(v) };
    // The second operand is the result where one is no number.
    let x = of(-126.0).max(x);
    let n = x.nearest();
    let r = x.sub(n[1]);
    // Minimax over [−1/2, 1/2] in relative error.
    let p = of(1.327_646e-3).mul_add(r, of(9.675_541e-3));
    let p = p.mul_add(r, of(5.550_713_5e-2));
    let p = p.mul_add(r, of(0.240_221_2));
    let p = p.mul_add(r, of(0.693_146_94));
    let p = p.mul_add(r, of(1.000_000_1));
    p.times_power(n)
}

/// Register of eight floats without instructions of their own: baseline x86-64, NEON (which the compiler finds), WebAssembly.
#[derive(Clone, Copy)]
pub struct PortableF32x8([f32; 8]);

impl PortableF32x8 {
    #[inline(always)]
    fn each(self, b: PortableF32x8, f: impl Fn(f32, f32) -> f32) -> PortableF32x8 {
        PortableF32x8(std::array::from_fn(|l| f(self.0[l], b.0[l])))
    }
}

impl Vector for PortableF32x8 {
    const LANES: usize = 8;
    const ROWS: usize = if cfg!(target_arch = "aarch64") { 6 } else { 2 };
    type Narrow = PortableF32x8;

    unsafe fn call<K: VectorKernel>(kernel: K) -> K::Output {
        kernel.run::<PortableF32x8>()
    }
    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        PortableF32x8([value; 8])
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        PortableF32x8(unsafe { from.cast::<[f32; 8]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        const FUSED: bool = cfg!(target_arch = "aarch64");
        PortableF32x8(std::array::from_fn(|l| crate::cpu::madd::<FUSED>(self.0[l], b.0[l], c.0[l])))
    }
    #[inline(always)]
    fn add(self, b: Self) -> Self {
        self.each(b, |a, b| a + b)
    }
    #[inline(always)]
    fn sub(self, b: Self) -> Self {
        self.each(b, |a, b| a - b)
    }
    #[inline(always)]
    fn mul(self, b: Self) -> Self {
        self.each(b, |a, b| a * b)
    }
    #[inline(always)]
    fn max(self, b: Self) -> Self {
        self.each(b, |a, b| if a > b { a } else { b })
    }
    #[inline(always)]
    fn exponent(self, add: i32) -> Self {
        PortableF32x8(self.0.map(|v| f32::from_bits(v.to_bits().wrapping_add(add as u32) << 23)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Kernel that computes exp of every value, powers of 2 of those up to 0 in both precisions, and the transposition of 8 rows.
    struct Probe<'a> {
        x: &'a [f32],
        square: &'a [f32],
    }

    impl VectorKernel for Probe<'_> {
        type Output = (Vec<f32>, [Vec<f32>; 2], Vec<f32>);

        #[inline(always)]
        fn run<V: Vector>(self) -> Self::Output {
            let (mut y, mut powers) = (vec![0.0; self.x.len()], [vec![0.0; self.x.len()], vec![0.0; self.x.len()]]);
            let mut transposed = vec![0.0; 64];
            // SAFETY: whole registers of slices of equal length; 8 rows of 8.
            unsafe {
                for at in (0..self.x.len()).step_by(V::LANES) {
                    let x = V::load(self.x.as_ptr().add(at));
                    exp(x).store(y.as_mut_ptr().add(at));
                    let below = V::splat(0.0).sub(x.max(V::splat(0.0).sub(x)));
                    exp2(below).store(powers[0].as_mut_ptr().add(at));
                    precise_exp2(below).store(powers[1].as_mut_ptr().add(at));
                }
                V::transpose8(std::array::from_fn(|r| self.square.as_ptr().add(8 * r)), 2.0, transposed.as_mut_ptr(), 8);
            }
            (y, powers, transposed)
        }
    }

    #[test]
    fn streams_whole_lines_and_what_is_none() {
        let from: Vec<f32> = (0..100).map(|i| i as f32).collect();
        for at in 0..20 {
            for n in [0, 5, 16, 32, 80] {
                let mut to = vec![-1.0; 128];
                stream(&from[..n], &mut to[at..at + n]);
                stream_end();
                assert!(to[..at].iter().chain(&to[at + n..]).all(|v| *v == -1.0));
                assert_eq!(to[at..at + n], from[..n]);
            }
        }
    }

    #[test]
    fn every_instruction_set_of_this_machine_agrees_with_the_library() {
        let x: Vec<f32> = (0..8000).map(|i| i as f32 * -0.0109).chain((0..32).map(|i| i as f32)).collect();
        let square: Vec<f32> = (0..64).map(|i| i as f32).collect();
        let probe = || Probe { x: &x, square: &square };
        // SAFETY: plain floats exist everywhere; the others are called where the CPU reports them.
        let mut results = vec![unsafe { PortableF32x8::call(probe()) }, dispatch(probe())];
        #[cfg(target_arch = "x86_64")]
        if matches!(isa(), Isa::Avx2 | Isa::Avx512) {
            // SAFETY: as above.
            results.push(unsafe { x86::F32x8::call(probe()) });
        }
        for (y, powers, transposed) in results {
            for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                let want = f64::from(*x).exp();
                assert!((f64::from(*y) - want).abs() <= 3e-7 * want, "exp({x}) = {y}, not {want}");
                let want = (-f64::from(x.abs())).exp2();
                for (power, error) in powers.iter().map(|powers| powers[i]).zip([4e-6, 3e-7]) {
                    assert!((f64::from(power) - want).abs() <= error * want, "2^-|{x}| = {power}, not {want}");
                }
            }
            for (i, v) in transposed.iter().enumerate() {
                assert_eq!(*v, 2.0 * square[i % 8 * 8 + i / 8]);
            }
        }
        // SAFETY: plain floats exist everywhere.
        let least = unsafe { PortableF32x8::splat(f32::NEG_INFINITY) };
        // SAFETY: as above.
        let least = unsafe { [exp(least), exp2(least), precise_exp2(least)] };
        assert!(least.iter().all(|least| least.0.iter().all(|v| *v < 1.3e-38)));
    }
}
