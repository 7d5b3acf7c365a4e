//! One loop, built twice: with AVX2 where the CPU has it, and with the target's baseline
//! (which on aarch64 already is NEON). The loops work on integers or in a fixed order, so both
//! builds give the same bytes. Inside, loops count lanes from 0 to a constant and call only what is
//! always inlined: iterator adapters and closures may be left as calls to plain code.

/// `fn name(args) = body;` defines `name`, which runs the `#[inline(always)]` function `body`
/// compiled for the best instruction set of this CPU.
macro_rules! multiversion {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $type:ty),* $(,)?) = $body:path;) => {
        $(#[$meta])*
        $vis fn $name($($arg: $type),*) {
            #[cfg(target_arch = "x86_64")]
            if std::arch::is_x86_feature_detected!("avx2") {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $type),*) {
                    $body($($arg),*);
                }
                // SAFETY: the line above proved that this CPU has AVX2.
                return unsafe { avx2($($arg),*) };
            }
            $body($($arg),*);
        }
    };
}

pub(crate) use multiversion;
