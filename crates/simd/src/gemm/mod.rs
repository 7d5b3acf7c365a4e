//! GEMM: large products of matrices behind one type that cannot be misused, [`Product`], and chains of them, [`Chain`].
//!
//! Two engines do the work. Where the CPU multiplies bf16 (AVX512-BF16) the blocking, the packing and the micro-kernels are our own, for
//! f32 and bf16 operands; everywhere else the crate `gemm` has f32 kernels for AVX-512, AVX2, NEON and plain CPUs. Both choices come from
//! measurements: docs/decisions/0020-own-products.md.
//!
//! Files from the bottom up: `matrix` and `epilogue` are operands and what is applied to results, `product` describes a product, `blocked`
//! is our engine, `packed` packs an operand for many products, `run` chooses the engine, `packed_tile` and `chain` are built on it.

#[cfg(target_arch = "x86_64")]
mod blocked;
mod chain;
mod epilogue;
mod matrix;
mod packed;
mod packed_tile;
mod product;
mod run;
#[cfg(test)]
mod tests;

pub use chain::{Chain, ChainLayer, ChainNorm, ChainSizes, ChainWeight, chain_scratch};
pub use epilogue::Epilogue;
pub use matrix::{Mat, MatMut};
pub use packed::Packed;
pub use packed_tile::PackedTile;
pub use product::{Product, Rounding};
pub use run::{gemm, row_sums_scratch, scratch, writes_bf16x2};
