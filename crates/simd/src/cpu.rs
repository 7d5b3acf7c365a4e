//! Detection of the instruction set, and loops built for each.

use std::sync::OnceLock;

/// Instruction set that the loops are built for: the widest that this CPU has, chosen at the first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// x86-64 with AVX-512 (F, and AVX2 with FMA for narrow tails).
    Avx512,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// AArch64, whose baseline has NEON and fused multiply-add.
    Neon,
    /// Whatever the compiler's baseline offers.
    Plain,
}

impl Isa {
    /// Name of the instruction set as `esvit doctor` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Neon => "neon",
            Isa::Plain => "plain",
        }
    }
}

/// The instruction set of this machine.
#[inline]
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(detect)
}

/// Whether matrix products may round their operands to bf16: the CPU multiplies it (AVX512-BF16, with BW and VL).
#[inline]
pub fn bf16() -> bool {
    static BF16: OnceLock<bool> = OnceLock::new();
    *BF16.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            let has =
                is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vl") && is_x86_feature_detected!("avx512bf16");
            isa() == Isa::Avx512 && has
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            false
        }
    })
}

fn detect() -> Isa {
    #[cfg(target_arch = "x86_64")]
    {
        let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        if avx2 && is_x86_feature_detected!("avx512f") {
            return Isa::Avx512;
        }
        if avx2 {
            return Isa::Avx2;
        }
    }
    if cfg!(target_arch = "aarch64") { Isa::Neon } else { Isa::Plain }
}

/// Computes `a·b + c`; fused where the build has the instruction, since a fused call without it is a slow library routine. `FMA` is the
/// constant that [`multiversion!`](crate::multiversion) sets.
#[inline(always)]
pub fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Builds one function body for AVX-512, AVX2 + FMA and the baseline, and calls the one for this CPU.
///
/// Inside the body the constant `FMA` tells whether [`madd`] fuses. All callees that should be built for the same instruction set must be
/// `#[inline(always)]`.
#[macro_export]
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        #[allow(clippy::too_many_arguments)]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            #[allow(clippy::too_many_arguments, clippy::extra_unused_type_parameters)]
            fn body<const FMA: bool>($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx2($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx512f,avx2,fma")]
            #[allow(clippy::too_many_arguments)]
            fn avx512($($arg: $ty),*) $(-> $ret)? { body::<true>($($arg),*) }
            match $crate::cpu::isa() {
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` returns Avx512 only where the CPU reported avx512f, avx2 and fma.
                $crate::cpu::Isa::Avx512 => unsafe { avx512($($arg),*) },
                #[cfg(target_arch = "x86_64")]
                // SAFETY: `isa` returns Avx2 only where the CPU reported avx2 and fma.
                $crate::cpu::Isa::Avx2 => unsafe { avx2($($arg),*) },
                $crate::cpu::Isa::Neon => body::<true>($($arg),*),
                _ => body::<false>($($arg),*),
            }
        }
    };
}
