//! The operators of the program, one folder each: contract, shape rule and gradient rule in `mod.rs`,
//! the plain and the fast version in `cpu.rs` (or in files beside it), the inputs worth trying in `cases.rs`.
//!
//! [`TABLE`] registers them. The same cases serve the parity test (fast against plain), the gradient
//! test (against finite differences, mid-graph) and the benchmark.

mod aligned;
pub mod attention;
pub mod batch_norm;
mod bf16x2;
mod case;
pub mod channel_gate;
mod check;
mod column_sums;
mod constant;
pub mod conv2d;
pub mod depthwise_conv;
mod epilogue;
mod filter;
pub mod fusion;
pub mod gather_rows;
pub mod gelu;
pub mod grouped_conv;
pub mod l2_normalize;
pub mod layer_norm;
pub mod linear;
pub mod max_pool;
pub mod patch_merge;
pub mod patchify;
pub mod pool_windows;
pub mod position;
mod precision;
pub mod prototype_loss;
pub mod quick_gelu;
pub mod region_match;
pub mod regrid;
pub mod relu;
pub mod residual;
pub mod row_map;
mod segment;
mod table;
pub mod token_mean;
mod unary;
pub mod weight_norm;
pub mod window_attention;
pub mod zeros;

pub use case::{Case, Input};
pub(crate) use constant::constant;
pub use filter::Filter;
pub use segment::{Layout, Segment};
pub use table::{OperatorEntry, TABLE, kernels};
