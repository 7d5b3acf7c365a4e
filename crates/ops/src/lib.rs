//! The operators of the program, one folder each: contract, shape rule and gradient rule in `mod.rs`,
//! the plain and the fast version in `cpu.rs` (or in files beside it), the inputs worth trying in `cases.rs`.
//!
//! [`TABLE`] registers them. The same cases serve the parity test (fast against plain), the gradient
//! test (against finite differences, mid-graph) and the benchmark.

mod aligned;
pub mod attention;
pub mod batch_norm;
mod case;
pub mod channel_gate;
mod check;
mod constant;
pub mod conv2d;
pub mod depthwise_conv;
mod elementwise;
mod filter;
pub mod gather_rows;
pub mod gelu;
pub mod grouped_conv;
pub mod l2_normalize;
pub mod layer_norm;
pub mod linear;
pub mod max_pool;
mod partial;
pub mod patch_merge;
pub mod patchify;
mod pieces;
pub mod pool_windows;
pub mod position;
mod precision;
pub mod prototype_loss;
pub mod quick_gelu;
pub mod region_match;
pub mod regrid;
pub mod relu;
pub mod residual;
mod rounded;
pub mod row_map;
mod segment;
pub mod token_mean;
pub mod weight_norm;
pub mod window_attention;
pub mod zeros;

use esvit_gpu::Kernel;

pub use case::{Case, Input};
pub(crate) use constant::constant;
pub use filter::Filter;
pub use segment::{Layout, Segment};

/// An operator and the inputs worth trying.
pub struct Entry {
    /// Its name.
    pub name: &'static str,
    /// Its cases.
    pub cases: fn() -> Vec<Case>,
}

/// Every operator a program can hold.
pub const TABLE: &[Entry] = &[
    Entry { name: "attention", cases: attention::cases },
    Entry { name: "batch_norm", cases: batch_norm::cases },
    Entry { name: "channel_gate", cases: channel_gate::cases },
    Entry { name: "conv2d", cases: conv2d::cases },
    Entry { name: "depthwise_conv", cases: depthwise_conv::cases },
    Entry { name: "gather_rows", cases: gather_rows::cases },
    Entry { name: "gelu", cases: gelu::cases },
    Entry { name: "grouped_conv", cases: grouped_conv::cases },
    Entry { name: "l2_normalize", cases: l2_normalize::cases },
    Entry { name: "layer_norm", cases: layer_norm::cases },
    Entry { name: "linear", cases: linear::cases },
    Entry { name: "max_pool", cases: max_pool::cases },
    Entry { name: "patch_merge", cases: patch_merge::cases },
    Entry { name: "patchify", cases: patchify::cases },
    Entry { name: "pool_windows", cases: pool_windows::cases },
    Entry { name: "position", cases: position::cases },
    Entry { name: "prototype_loss", cases: prototype_loss::cases },
    Entry { name: "quick_gelu", cases: quick_gelu::cases },
    Entry { name: "region_match", cases: region_match::cases },
    Entry { name: "regrid", cases: regrid::cases },
    Entry { name: "relu", cases: relu::cases },
    Entry { name: "residual", cases: residual::cases },
    Entry { name: "row_map", cases: row_map::cases },
    Entry { name: "token_mean", cases: token_mean::cases },
    Entry { name: "weight_norm", cases: weight_norm::cases },
    Entry { name: "window_attention", cases: window_attention::cases },
    Entry { name: "zeros", cases: zeros::cases },
];

/// Every kernel that operators record, for checks that need no GPU.
pub fn kernels() -> Vec<&'static Kernel> {
    let own = [
        attention::gpu::KERNELS,
        batch_norm::gpu::KERNELS,
        channel_gate::gpu::KERNELS,
        conv2d::gpu::KERNELS,
        gather_rows::gpu::KERNELS,
        gelu::gpu::KERNELS,
        grouped_conv::gpu::KERNELS,
        l2_normalize::gpu::KERNELS,
        layer_norm::gpu::KERNELS,
        max_pool::gpu::KERNELS,
        patch_merge::gpu::KERNELS,
        patchify::gpu::KERNELS,
        pool_windows::gpu::KERNELS,
        position::gpu::KERNELS,
        prototype_loss::gpu::KERNELS,
        quick_gelu::gpu::KERNELS,
        region_match::gpu::KERNELS,
        regrid::gpu::KERNELS,
        relu::gpu::KERNELS,
        residual::gpu::KERNELS,
        row_map::gpu::KERNELS,
        token_mean::gpu::KERNELS,
        weight_norm::gpu::KERNELS,
        window_attention::gpu::KERNELS,
        zeros::KERNELS,
    ];
    let shared = [&esvit_gpu::reduce::SUM_PIECES, &esvit_gpu::reduce::COLUMN_SUM, &esvit_graph::SUM];
    own.into_iter().chain([esvit_gpu::matmul::KERNELS]).flatten().copied().chain(shared).collect()
}
