//! The kernels of the update. Each struct mirrors `Params` of the files named at its kernels.

use bytemuck::{Pod, Zeroable};
use esvit_gpu::Kernel;

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ReportParams {
    pub region: u32,
    pub pad: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct SquaresParams {
    pub len: u32,
    pub mode: u32,
    pub entry: u32,
    pub first: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct NormParams {
    pub pieces: u32,
    pub mode: u32,
    pub entry: u32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct ScalerParams {
    pub entries: u32,
    pub pad: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct UpdateParams {
    pub len: u32,
    pub entry: u32,
    pub pad: [u32; 2],
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct AverageParams {
    pub len: u32,
    pub teacher: u32,
    pub keep: f32,
    pub share: f32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct AccumulateParams {
    pub len: u32,
    pub stride: u32,
    pub share: f32,
    pub pad: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct SummaryParams {
    pub rows: u32,
    pub cols: u32,
    pub entries: u32,
    pub pad: u32,
}

pub static REPORT: Kernel = Kernel::new::<ReportParams>("report", &[include_str!("report.wgsl")], "main", 5);
pub static SQUARES: Kernel = Kernel::new::<SquaresParams>("squares", &[include_str!("squares.wgsl")], "main", 5);
pub static NORM: Kernel = Kernel::new::<NormParams>("norm", &[include_str!("norm.wgsl")], "main", 3);
pub static SCALER: Kernel = Kernel::new::<ScalerParams>("scaler", &[include_str!("scaler.wgsl")], "main", 2);
pub static ADAMW: Kernel = Kernel::new::<UpdateParams>("adamw", &[include_str!("adamw.wgsl")], "main", 7);
pub static MOMENTUM: Kernel = Kernel::new::<UpdateParams>("momentum", &[include_str!("momentum.wgsl")], "main", 6);
pub static AVERAGE: Kernel = Kernel::new::<AverageParams>("average", &[include_str!("average.wgsl")], "main", 4);
pub static ACCUMULATE: Kernel = Kernel::new::<AccumulateParams>("accumulate", &[include_str!("accumulate.wgsl")], "main", 3);
pub static SUMMARY: Kernel = Kernel::new::<SummaryParams>("summary", &[include_str!("summary.wgsl")], "main", 3);

/// All kernels of the update, for checks that need no GPU.
pub static KERNELS: &[&Kernel] = &[&REPORT, &SQUARES, &NORM, &SCALER, &ADAMW, &MOMENTUM, &AVERAGE, &ACCUMULATE, &SUMMARY];
