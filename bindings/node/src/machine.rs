//! The machine: its GPUs, its CPU and the rate of its matrix products.

use std::sync::Mutex;

use esvit_engine::peak::gemm_gflops;
use esvit_engine::{DeviceKind, device};
use esvit_simd::Pool;
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::failure::{CONFIG, ENGINE, failure};
use crate::json::read;

/// Reads the device a caller names.
pub fn read_device(device: serde_json::Value) -> Result<DeviceKind> {
    read(device, CONFIG, "the device")
}

/// The best GPU of the machine, opened once: a trainer and an encoder share it and its compiled kernels.
pub fn open_gpu() -> esvit_engine::Result<device::Gpu> {
    static OPENED: Mutex<Option<device::Gpu>> = Mutex::new(None);
    let mut opened = OPENED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(gpu) = &*opened {
        return Ok(gpu.clone());
    }
    let gpu = device::Gpu::open()?;
    Ok(opened.insert(gpu).clone())
}

/// A GPU of the machine, in words for a user. Sizes in bytes.
#[napi(object, object_from_js = false)]
pub struct GpuAdapter {
    /// The vendor's name for it.
    pub name: String,
    /// Kind of processor; `software` computes on the CPU: for tests, and never chosen by `auto`.
    #[napi(ts_type = "'discrete' | 'integrated' | 'virtual' | 'other' | 'software'")]
    pub kind: String,
    /// `Vulkan`, `Metal` or `Dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest buffer.
    pub max_buffer: f64,
    /// Largest part of a buffer that a kernel can see.
    pub max_binding: f64,
    /// Shared memory of a workgroup.
    pub workgroup_memory: u32,
    /// Whether kernels can compute in half precision.
    pub half_precision: bool,
    /// Whether kernels can multiply small matrices in hardware.
    pub cooperative_matrix: bool,
    /// Arithmetic of the matrix products with `--precision mixed`.
    pub mixed: String,
    /// Whether dispatches can be timed.
    pub timestamps: bool,
}

impl From<device::Adapter> for GpuAdapter {
    fn from(a: device::Adapter) -> GpuAdapter {
        GpuAdapter {
            mixed: a.half().name().into(),
            name: a.name,
            kind: a.kind.name().into(),
            backend: a.backend,
            driver: a.driver,
            max_buffer: a.max_buffer as f64,
            max_binding: a.max_binding as f64,
            workgroup_memory: a.workgroup_memory,
            half_precision: a.half_precision,
            cooperative_matrix: a.cooperative_matrix,
            timestamps: a.timestamps,
        }
    }
}

/// The machine's GPUs, best first; empty where there is none.
#[napi]
pub fn adapters() -> Vec<GpuAdapter> {
    device::adapters().into_iter().map(GpuAdapter::from).collect()
}

/// One call of [`gemm_peak`].
pub struct GemmPeak {
    threads: u32,
}

impl Task for GemmPeak {
    type Output = f64;
    type JsValue = f64;

    fn compute(&mut self) -> Result<f64> {
        Ok(gemm_gflops(&Pool::new(self.threads as usize).map_err(|e| failure(ENGINE, e))?))
    }

    fn resolve(&mut self, _: Env, rate: f64) -> Result<f64> {
        Ok(rate)
    }
}

/// Single-precision GEMM rate of this machine with `threads` threads (0 for one a core), in GFLOP/s: the reference of shares of the peak.
///
/// Rejects with `ENGINE` where the threads cannot be started.
#[napi(ts_return_type = "Promise<number>")]
pub fn gemm_peak(threads: u32) -> AsyncTask<GemmPeak> {
    AsyncTask::new(GemmPeak { threads })
}

/// Instruction set chosen at start: `avx512`, `avx2`, `neon` or `plain`.
#[napi]
pub fn cpu_features() -> &'static str {
    esvit_simd::cpu::isa().name()
}

/// Whether `mixed` multiplies bf16 on this CPU; otherwise it is single precision.
#[napi]
pub fn cpu_multiplies_bf16() -> bool {
    esvit_simd::cpu::bf16()
}
