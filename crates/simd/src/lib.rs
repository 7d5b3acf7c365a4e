//! Vectors, threads and GEMM: the arithmetic that every operator stands on. Slices in, slices out.
//!
//! - [`cpu`]: which instruction set was chosen, once, at the first use.
//! - [`multiversion!`]: one loop body, built for each instruction set.
//! - [`math`]: exp and erf.
//! - [`gelu`]: GELU and its derivative over slices.
//! - [`lanes`]: sums, dot products and other one-pass loops in a fixed order of additions.
//! - [`gemm`]: large products with epilogues, their weights packed once where the CPU multiplies bf16.
//! - [`panel`]: products of matrices that fit in the first-level cache (attention tiles).
//! - `bf16x2` (x86-64): products of attention tiles with operands rounded to bf16, where the CPU multiplies it.
//! - [`vector`]: registers of each instruction set, for kernels that count them.
//! - [`half`]: conversion between f32 and 16 bits.
//! - [`pool`]: the thread pool and its reusable scratch buffers.

mod affinity;
#[cfg(target_arch = "x86_64")]
pub mod bf16x2;
mod buffer;
pub mod cpu;
pub mod gelu;
pub mod gemm;
pub mod half;
pub mod lanes;
pub mod math;
pub mod panel;
pub mod pool;
pub mod vector;

pub use gemm::{Mat, MatMut};
pub use pool::Pool;
