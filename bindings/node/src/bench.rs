//! Measurements, on Node's thread pool.

use esvit_bench::{BenchRequest, Machine, Report, estimate};
use esvit_engine::DeviceKind;
use esvit_engine::spec::TrainerSpec;
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Result, Task};
use napi_derive::napi;
use serde_json::Value;

use crate::failure::{CONFIG, from_engine};
use crate::json::{Json, read};
use crate::machine::{open_gpu, read_device};
use crate::trainer::read_spec;

fn machine(threads: usize, device: DeviceKind) -> esvit_engine::Result<Machine> {
    match device {
        DeviceKind::Cpu => Machine::cpu(threads),
        DeviceKind::Gpu => open_gpu().and_then(Machine::with_gpu),
    }
}

/// One call of [`bench`].
pub struct Bench {
    request: BenchRequest,
    device: DeviceKind,
}

impl Task for Bench {
    type Output = Report;
    type JsValue = Json;

    fn compute(&mut self) -> Result<Report> {
        let machine = machine(self.request.spec.threads, self.device).map_err(from_engine)?;
        Report::of(&self.request, &machine).map_err(from_engine)
    }

    fn resolve(&mut self, _: Env, report: Report) -> Result<Json> {
        Json::of(report)
    }
}

/// Measures a subject at the sizes of a trainer's specification, on Node's thread pool.
///
/// Throws `CONFIG` where the request is malformed; rejects with `CONFIG` where the subject is not known or cannot be built, with `DEVICE`
/// where there is no GPU, it has too little memory or it was lost.
#[napi(ts_args_type = "request: BenchRequest, device: Device", ts_return_type = "Promise<BenchReport>")]
pub fn bench(request: Value, device: Value) -> Result<AsyncTask<Bench>> {
    Ok(AsyncTask::new(Bench { request: read(request, CONFIG, "the measurement's specification")?, device: read_device(device)? }))
}

/// One call of [`estimate_step`].
pub struct EstimateStep {
    spec: TrainerSpec,
    device: DeviceKind,
}

impl Task for EstimateStep {
    type Output = Option<f64>;
    type JsValue = Option<f64>;

    fn compute(&mut self) -> Result<Option<f64>> {
        let ms = machine(self.spec.threads, self.device).and_then(|machine| estimate(&self.spec, &machine)).map_err(from_engine)?;
        Ok(ms.map(|ms| ms / 1e3))
    }

    fn resolve(&mut self, _: Env, seconds: Option<f64>) -> Result<Option<f64>> {
        Ok(seconds)
    }
}

/// Estimates the seconds of a step from its operators timed alone; null on a GPU in software. Takes as long as a step of one image or two.
///
/// Throws `CONFIG` where the specification is malformed; rejects with `CONFIG` where it cannot be built, with `DEVICE` for a GPU's failures.
#[napi(ts_args_type = "spec: TrainerSpec, device: Device", ts_return_type = "Promise<number | null>")]
pub fn estimate_step(spec: Value, device: Value) -> Result<AsyncTask<EstimateStep>> {
    Ok(AsyncTask::new(EstimateStep { spec: read_spec(spec)?, device: read_device(device)? }))
}
