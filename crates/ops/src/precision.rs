//! Rounding of matrix products on the CPU, by a program's precision.

use esvit_graph::Precision;
use esvit_simd::gemm::Rounding;

/// Rounding of a product's operands.
pub(crate) fn rounding(precision: Precision) -> Rounding {
    match precision {
        Precision::F32 => Rounding::F32,
        Precision::Mixed => Rounding::Bf16,
    }
}

/// Whether products of attention round their operands: the program says so, and the CPU multiplies bf16.
pub(crate) fn rounds(precision: Precision) -> bool {
    rounding(precision) == Rounding::Bf16 && esvit_simd::cpu::bf16()
}
