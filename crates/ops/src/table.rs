//! The registry of operators: one line each.

use esvit_gpu::{Kernel, matmul, reduce};

use crate::*;

/// An operator, the inputs worth trying and the kernels it alone records.
pub struct OperatorEntry {
    /// Name of the operator.
    pub name: &'static str,
    /// Cases for parity, gradients and time.
    pub cases: fn() -> Vec<Case>,
    /// Kernels of its folder; shared ones are added by [`kernels`].
    pub(crate) kernels: &'static [&'static Kernel],
}

/// Every operator that a graph is built of.
pub static TABLE: &[OperatorEntry] = &[
    OperatorEntry { name: "attention", cases: attention::cases, kernels: attention::gpu::KERNELS },
    OperatorEntry { name: "batch_norm", cases: batch_norm::cases, kernels: batch_norm::gpu::KERNELS },
    OperatorEntry { name: "channel_gate", cases: channel_gate::cases, kernels: channel_gate::gpu::KERNELS },
    OperatorEntry { name: "conv2d", cases: conv2d::cases, kernels: conv2d::gpu::KERNELS },
    OperatorEntry { name: "depthwise_conv", cases: depthwise_conv::cases, kernels: &[] },
    OperatorEntry { name: "gather_rows", cases: gather_rows::cases, kernels: gather_rows::gpu::KERNELS },
    OperatorEntry { name: "gelu", cases: gelu::cases, kernels: gelu::GELU.kernels },
    OperatorEntry { name: "grouped_conv", cases: grouped_conv::cases, kernels: grouped_conv::gpu::KERNELS },
    OperatorEntry { name: "l2_normalize", cases: l2_normalize::cases, kernels: l2_normalize::gpu::KERNELS },
    OperatorEntry { name: "layer_norm", cases: layer_norm::cases, kernels: layer_norm::gpu::KERNELS },
    OperatorEntry { name: "linear", cases: linear::cases, kernels: &[] },
    OperatorEntry { name: "max_pool", cases: max_pool::cases, kernels: max_pool::gpu::KERNELS },
    OperatorEntry { name: "patch_merge", cases: patch_merge::cases, kernels: patch_merge::gpu::KERNELS },
    OperatorEntry { name: "patchify", cases: patchify::cases, kernels: patchify::gpu::KERNELS },
    OperatorEntry { name: "pool_windows", cases: pool_windows::cases, kernels: pool_windows::gpu::KERNELS },
    OperatorEntry { name: "position", cases: position::cases, kernels: position::gpu::KERNELS },
    OperatorEntry { name: "prototype_loss", cases: prototype_loss::cases, kernels: prototype_loss::gpu::KERNELS },
    OperatorEntry { name: "quick_gelu", cases: quick_gelu::cases, kernels: quick_gelu::QUICK_GELU.kernels },
    OperatorEntry { name: "region_match", cases: region_match::cases, kernels: region_match::gpu::KERNELS },
    OperatorEntry { name: "regrid", cases: regrid::cases, kernels: regrid::gpu::KERNELS },
    OperatorEntry { name: "relu", cases: relu::cases, kernels: relu::RELU.kernels },
    OperatorEntry { name: "residual", cases: residual::cases, kernels: residual::gpu::KERNELS },
    OperatorEntry { name: "row_map", cases: row_map::cases, kernels: row_map::gpu::KERNELS },
    OperatorEntry { name: "token_mean", cases: token_mean::cases, kernels: token_mean::gpu::KERNELS },
    OperatorEntry { name: "weight_norm", cases: weight_norm::cases, kernels: weight_norm::gpu::KERNELS },
    OperatorEntry { name: "window_attention", cases: window_attention::cases, kernels: window_attention::gpu::KERNELS },
    OperatorEntry { name: "zeros", cases: zeros::cases, kernels: zeros::KERNELS },
];

/// Every kernel that operators record, for checks that need no GPU: those of [`TABLE`], and those that they share.
pub fn kernels() -> Vec<&'static Kernel> {
    let shared = [&reduce::SUM_PIECES, &reduce::COLUMN_SUM, &esvit_graph::SUM];
    TABLE.iter().flat_map(|entry| entry.kernels).chain(matmul::KERNELS).copied().chain(shared).collect()
}
