//! Stateless work: images, k-NN, the machine's peak. Long calls run on Node's thread pool.

use std::sync::Mutex;

use esvit_engine::device;
use esvit_engine::knn::{Accuracy, Labeled, classify};
use esvit_engine::peak::gemm_gflops;
use esvit_image::{CropPlan, Limits, encode_png as encode, info, render_all};
use esvit_simd::Pool;
use napi::bindgen_prelude::{AsyncTask, Float32Array, Uint8Array, Uint32Array};
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::failure::{ENGINE, IMAGE, failure, from_engine};

/// Decodes once and renders every crop.
pub struct RenderCrops {
    encoded: Uint8Array,
    plans: serde_json::Value,
}

impl Task for RenderCrops {
    type Output = Vec<u8>;
    type JsValue = Uint8Array;

    fn compute(&mut self) -> Result<Vec<u8>> {
        let plans: Vec<CropPlan> =
            serde_json::from_value(std::mem::take(&mut self.plans)).map_err(|e| failure(ENGINE, format_args!("a crop plan: {e}")))?;
        render_all(&self.encoded, &plans, &Limits::default()).map_err(|e| failure(IMAGE, e))
    }

    fn resolve(&mut self, _: Env, pixels: Vec<u8>) -> Result<Uint8Array> {
        Ok(pixels.into())
    }
}

#[napi(ts_return_type = "Promise<Uint8Array>")]
pub fn render_crops(encoded: Uint8Array, crops: serde_json::Value) -> AsyncTask<RenderCrops> {
    AsyncTask::new(RenderCrops { encoded, plans: crops })
}

#[napi(object)]
pub struct ImageInfo {
    pub width: u32,
    pub height: u32,
}

#[napi]
pub fn image_info(encoded: Uint8Array) -> Result<ImageInfo> {
    let info = info(&encoded).map_err(|e| failure(IMAGE, e))?;
    Ok(ImageInfo { width: info.width, height: info.height })
}

#[napi]
pub fn encode_png(pixels: Uint8Array, width: u32, height: u32) -> Result<Uint8Array> {
    encode(&pixels, width, height).map(Uint8Array::from).map_err(|e| failure(IMAGE, e))
}

#[napi(object)]
pub struct KnnResult {
    pub k: u32,
    pub top1: f64,
    pub top5: f64,
}

/// Votes of the neighbors.
pub struct Knn {
    train: Float32Array,
    train_labels: Uint32Array,
    test: Float32Array,
    test_labels: Uint32Array,
    width: u32,
    classes: u32,
    ks: Vec<u32>,
    temperature: f64,
}

impl Task for Knn {
    type Output = Vec<Accuracy>;
    type JsValue = Vec<KnnResult>;

    fn compute(&mut self) -> Result<Vec<Accuracy>> {
        let pool = Pool::new(0).map_err(|e| failure(ENGINE, e))?;
        let train = Labeled { features: &self.train, labels: &self.train_labels };
        let test = Labeled { features: &self.test, labels: &self.test_labels };
        let ks: Vec<usize> = self.ks.iter().map(|&k| k as usize).collect();
        classify(&pool, train, test, self.width as usize, self.classes as usize, &ks, self.temperature as f32).map_err(from_engine)
    }

    fn resolve(&mut self, _: Env, results: Vec<Accuracy>) -> Result<Vec<KnnResult>> {
        Ok(results.into_iter().map(|a| KnnResult { k: a.k as u32, top1: a.top1, top5: a.top5 }).collect())
    }
}

#[napi(ts_return_type = "Promise<KnnResult[]>")]
#[allow(clippy::too_many_arguments)]
pub fn knn(
    train: Float32Array,
    train_labels: Uint32Array,
    test: Float32Array,
    test_labels: Uint32Array,
    width: u32,
    classes: u32,
    ks: Vec<u32>,
    temperature: f64,
) -> AsyncTask<Knn> {
    AsyncTask::new(Knn { train, train_labels, test, test_labels, width, classes, ks, temperature })
}

/// The machine's GEMM rate.
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

#[napi(ts_return_type = "Promise<number>")]
pub fn gemm_peak(threads: u32) -> AsyncTask<GemmPeak> {
    AsyncTask::new(GemmPeak { threads })
}

#[napi]
pub fn cpu_features() -> &'static str {
    esvit_simd::cpu::isa().name()
}

#[napi]
pub fn cpu_multiplies_bf16() -> bool {
    esvit_simd::cpu::bf16()
}

/// Where a program runs.
#[napi(string_enum)]
#[allow(non_camel_case_types)]
pub enum Device {
    cpu,
    gpu,
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

/// What is known of a GPU.
#[napi(object)]
pub struct GpuAdapter {
    pub name: String,
    pub kind: String,
    pub backend: String,
    pub driver: String,
    pub max_buffer: f64,
    pub max_binding: f64,
    pub workgroup_memory: u32,
    pub half_precision: bool,
    pub cooperative_matrix: bool,
    /// What multiplies matrices with `mixed`.
    pub mixed: String,
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

/// The machine's GPUs, best first.
#[napi]
pub fn adapters() -> Vec<GpuAdapter> {
    device::adapters().into_iter().map(GpuAdapter::from).collect()
}
