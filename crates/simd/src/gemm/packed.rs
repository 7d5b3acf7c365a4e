//! Operand b of products, packed once for many of them.

#[cfg(target_arch = "x86_64")]
use super::blocked;
use super::matrix::Mat;
use super::product::Rounding;
use crate::buffer::Buffer;
use crate::cpu;

/// Operand b of products, rounded and in the order in which the micro-kernels read it: packed once, used often.
#[derive(Debug)]
pub struct Packed {
    /// Words of 32 bits.
    pub(super) words: Buffer,
    pub(super) rounding: Rounding,
    pub(super) k: usize,
    pub(super) n: usize,
}

impl Packed {
    /// Packs b, over the threads of the pool this is called in; `None` on a CPU whose products are those of the crate `gemm`, which packs
    /// by itself.
    pub fn new(b: Mat, rounding: Rounding) -> Option<Packed> {
        #[cfg(target_arch = "x86_64")]
        if cpu::bf16() && b.rows * b.cols > 0 {
            // SAFETY: `cpu::bf16` said that the CPU has the features.
            let words = unsafe {
                match rounding {
                    Rounding::F32 => blocked::pack::<false>(b),
                    Rounding::Bf16 => blocked::pack::<true>(b),
                }
            };
            return Some(Packed { words, rounding, k: b.rows, n: b.cols });
        }
        _ = (b, rounding);
        None
    }

    /// Bytes of the packed words.
    pub fn bytes(&self) -> usize {
        4 * self.words.len()
    }
}
