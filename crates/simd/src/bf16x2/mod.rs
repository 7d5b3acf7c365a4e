//! Attention tiles in bf16 (AVX512-BF16): operands are rounded as they are packed, sums are f32.
//!
//! Operands consist of 32-bit *words*: two bf16 that are neighbors along the inner dimension of a product. A matrix `[rows, n]` has three
//! packings, each made of the first:
//!
//! - *rows*: words of two neighboring columns, in their order, `[rows, words(n)]`
//! - *VNNI*: words of two neighboring rows, `[⌈rows/2⌉, lanes(n)]`
//! - *transposed*: words of two neighboring columns, columns first, `[⌈n/2⌉, line]`
//!
//! Missing elements are zero: the second row of the last word, columns up to whole registers. [`Bf16Product`] multiplies; [`softmax`] turns
//! its sums into the next product's operands. Every function here promises to be called only where [`crate::cpu::bf16`] is true.

mod pack;
mod product;
pub mod softmax;
#[cfg(test)]
mod tests;

pub use pack::{LANES, RowPart, copy_rows, lanes, line, pack_rows, pack_transposed, pack_vnni, words};
pub use product::{Bf16Product, BiasRows, RegionMask, Scores};
