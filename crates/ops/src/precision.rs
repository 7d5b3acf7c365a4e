//! What a program's precision means for the products of the CPU.

use esvit_graph::Precision;
use esvit_simd::gemm::Rounding;

/// Rounding of operands.
pub(crate) fn rounding(precision: Precision) -> Rounding {
    match precision {
        Precision::F32 => Rounding::F32,
        Precision::Mixed => Rounding::Bf16,
    }
}
