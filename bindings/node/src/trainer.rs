//! `Trainer`: one training run.

use std::time::Instant;

use esvit_bench::{Machine, estimate};
use esvit_engine::spec::TrainerSpec;
use esvit_engine::{DeviceKind, Pixels, StepParameters, Trainer, TrainerPlan as Plan};
use napi::bindgen_prelude::{AsyncTask, Object, Uint8Array};
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::failure::{CONFIG, STATE, failure, from_engine};
use crate::functions::{Device, open_gpu};
use crate::tensors::{TensorData, TensorShape, TrainerStateData, describe, give_state, state_part, take_all, take_state};
use crate::worker::Worker;

#[napi(object)]
pub struct Crops {
    pub global: Uint8Array,
    pub local: Uint8Array,
    pub mixup: Option<Mixup>,
}

#[napi(object)]
pub struct Mixup {
    pub lambda: Vec<f64>,
}

#[napi(object, js_name = "StepParameters")]
pub struct JsStepParameters {
    pub step: f64,
    pub progress: f64,
    pub learning_rate: f64,
    pub weight_decay: f64,
    pub momentum: f64,
    pub teacher_temperature: f64,
    pub freeze_last_layer: bool,
}

#[napi(object)]
pub struct StepStats {
    pub loss: f64,
    pub view_loss: f64,
    pub region_loss: f64,
    pub teacher_entropy: f64,
    pub feature_deviation: f64,
    pub gradient_norm: f64,
    pub finite: bool,
    pub skipped: bool,
    pub loss_scale: f64,
    pub elapsed_ms: f64,
}

#[napi(object)]
pub struct MemoryPlan {
    pub arena: f64,
    pub parameters: f64,
    pub workspace: f64,
    pub largest_tensor: f64,
}

#[napi(object)]
pub struct TrainerPlan {
    pub memory: MemoryPlan,
    pub parameter_count: f64,
    pub gflop: f64,
}

#[napi(object)]
pub struct ProfileRow {
    pub phase: String,
    pub operator: String,
    pub calls: u32,
    pub ms: f64,
    pub gflop: f64,
}

#[napi(object)]
pub struct LoadReport {
    pub loaded: u32,
    pub missing: Vec<String>,
    pub unexpected: Vec<String>,
}

impl From<JsStepParameters> for StepParameters {
    fn from(k: JsStepParameters) -> StepParameters {
        StepParameters {
            step: k.step as u64,
            progress: k.progress,
            learning_rate: k.learning_rate,
            weight_decay: k.weight_decay,
            momentum: k.momentum,
            teacher_temperature: k.teacher_temperature,
            freeze_last_layer: k.freeze_last_layer,
        }
    }
}

impl Crops {
    fn pixels(&self) -> Pixels<'_> {
        Pixels::U8 { global: &self.global, local: &self.local }
    }

    fn lambda(&self) -> Option<Vec<f32>> {
        self.mixup.as_ref().map(|m| m.lambda.iter().map(|&l| l as f32).collect())
    }
}

/// A training run on a thread of its own.
#[napi(js_name = "Trainer")]
pub struct JsTrainer {
    worker: Worker<Trainer>,
    plan: Plan,
    shapes: Vec<TensorShape>,
}

/// What a trainer of this specification would need. Nothing is allocated for it.
#[napi]
pub fn plan_trainer(spec: serde_json::Value, device: Device) -> Result<TrainerPlan> {
    let device = match device {
        Device::cpu => DeviceKind::Cpu,
        Device::gpu => DeviceKind::Gpu,
    };
    Ok(Plan::new(&read_spec(spec)?, device).map_err(from_engine)?.into())
}

/// How long a step will take.
pub struct EstimateStep {
    spec: TrainerSpec,
    device: Device,
}

impl Task for EstimateStep {
    type Output = Option<f64>;
    type JsValue = Option<f64>;

    fn compute(&mut self) -> Result<Option<f64>> {
        let machine = match self.device {
            Device::cpu => Machine::cpu(self.spec.threads),
            Device::gpu => open_gpu().and_then(Machine::with_gpu),
        };
        let ms = machine.and_then(|machine| estimate(&self.spec, &machine)).map_err(from_engine)?;
        Ok(ms.map(|ms| ms / 1e3))
    }

    fn resolve(&mut self, _: Env, seconds: Option<f64>) -> Result<Option<f64>> {
        Ok(seconds)
    }
}

/// Seconds of a step, from its operators timed alone; nothing on a GPU in software.
#[napi(ts_return_type = "Promise<number | null>")]
pub fn estimate_step(spec: serde_json::Value, device: Device) -> Result<AsyncTask<EstimateStep>> {
    Ok(AsyncTask::new(EstimateStep { spec: read_spec(spec)?, device }))
}

/// Builds a trainer from a complete specification; its steps run on the CPU or on the best GPU.
#[napi]
pub fn create_trainer(spec: serde_json::Value, device: Device) -> Result<JsTrainer> {
    let spec = read_spec(spec)?;
    let trainer = match device {
        Device::cpu => Trainer::new(spec, esvit_engine::Device::Cpu),
        Device::gpu => open_gpu().and_then(|gpu| Trainer::new(spec, esvit_engine::Device::Gpu(gpu))),
    };
    let trainer = trainer.map_err(from_engine)?;
    let shapes = describe(&trainer.student().tensors_with(|view| view.to_no_values()));
    Ok(JsTrainer { plan: *trainer.plan(), shapes, worker: Worker::new("esvit-trainer", trainer)? })
}

fn read_spec(spec: serde_json::Value) -> Result<TrainerSpec> {
    serde_json::from_value(spec).map_err(|e| failure(CONFIG, format_args!("the trainer's specification: {e}")))
}

impl From<Plan> for TrainerPlan {
    fn from(plan: Plan) -> TrainerPlan {
        let esvit_engine::MemoryPlan { arena, parameters, workspace, largest_tensor } = plan.memory;
        TrainerPlan {
            memory: MemoryPlan {
                arena: arena as f64,
                parameters: parameters as f64,
                workspace: workspace as f64,
                largest_tensor: largest_tensor as f64,
            },
            parameter_count: plan.parameter_count as f64,
            gflop: plan.flops as f64 / 1e9,
        }
    }
}

#[napi]
impl JsTrainer {
    #[napi(getter)]
    pub fn plan(&self) -> TrainerPlan {
        self.plan.into()
    }

    #[napi]
    pub fn describe(&self) -> Vec<TensorShape> {
        self.shapes.clone()
    }

    #[napi(ts_return_type = "Promise<StepStats>")]
    pub fn step<'env>(&self, env: &'env Env, crops: Crops, parameters: JsStepParameters) -> Result<Object<'env>> {
        self.worker.call(env, move |trainer| {
            let started = Instant::now();
            let stats = trainer.step(crops.pixels(), crops.lambda().as_deref(), &parameters.into()).map_err(from_engine)?;
            Ok(StepStats {
                loss: stats.loss,
                view_loss: stats.view_loss,
                region_loss: stats.region_loss,
                teacher_entropy: stats.teacher_entropy,
                feature_deviation: stats.feature_deviation,
                gradient_norm: stats.gradient_norm,
                finite: stats.finite,
                skipped: stats.skipped,
                loss_scale: stats.loss_scale,
                elapsed_ms: started.elapsed().as_secs_f64() * 1e3,
            })
        })
    }

    #[napi(ts_return_type = "Promise<ProfileRow[]>")]
    pub fn profile<'env>(&self, env: &'env Env, crops: Crops, parameters: JsStepParameters) -> Result<Object<'env>> {
        self.worker.call(env, move |trainer| {
            let rows = trainer.profile(crops.pixels(), crops.lambda().as_deref(), &parameters.into()).map_err(from_engine)?;
            let row = |r: esvit_engine::ProfileRow| ProfileRow {
                phase: r.phase.into(),
                operator: r.operator.into(),
                calls: r.calls,
                ms: r.time.as_secs_f64() * 1e3,
                gflop: r.flops as f64 / 1e9,
            };
            Ok(rows.into_iter().map(row).collect::<Vec<_>>())
        })
    }

    #[napi(ts_return_type = "Promise<TrainerState>")]
    pub fn state<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        self.worker.call(env, |trainer| trainer.state().map(give_state).map_err(from_engine))
    }

    #[napi(ts_return_type = "Promise<TrainerState>")]
    pub fn outline<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        self.worker.call(env, |trainer| trainer.outline().map(give_state).map_err(from_engine))
    }

    /// Copies the values of a tensor of the last outline into an array of their size, a piece at a time.
    #[napi]
    pub fn read(&self, part: String, index: u32, mut target: Uint8Array) -> Result<()> {
        const PIECE: usize = 4 << 20;
        let part = state_part(&part)?;
        // SAFETY: JavaScript, which could touch the array, runs on this thread alone.
        let target = unsafe { target.as_mut() };
        let size = target.len();
        for (i, piece) in target.chunks_mut(PIECE).enumerate() {
            let range = i * PIECE..i * PIECE + piece.len();
            let bytes = self.worker.wait(move |trainer| {
                let view = trainer.read(part, index as usize);
                let bytes = view.as_ref().map(|view| view.bytes()).filter(|bytes| bytes.len() == size);
                let wrong = || failure(STATE, format_args!("the state has no tensor {index} of {size} bytes there"));
                Ok(bytes.ok_or_else(wrong)?[range].to_vec())
            })?;
            piece.copy_from_slice(&bytes);
        }
        Ok(())
    }

    #[napi(ts_return_type = "Promise<void>")]
    pub fn load<'env>(&self, env: &'env Env, state: TrainerStateData) -> Result<Object<'env>> {
        let state = take_state(state)?;
        self.worker.call(env, move |trainer| trainer.load(state).map_err(from_engine))
    }

    #[napi(ts_return_type = "Promise<LoadReport>")]
    pub fn load_weights<'env>(&self, env: &'env Env, weights: Vec<TensorData>, partial: bool) -> Result<Object<'env>> {
        let weights = take_all(weights)?;
        self.worker.call(env, move |trainer| {
            let report = trainer.load_weights(weights, partial).map_err(from_engine)?;
            Ok(LoadReport { loaded: report.loaded as u32, missing: report.missing, unexpected: report.unexpected })
        })
    }

    #[napi]
    pub fn dispose(&mut self) {
        self.worker.dispose();
    }
}
