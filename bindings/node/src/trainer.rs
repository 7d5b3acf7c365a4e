//! `Trainer`: one training run.

use esvit_engine::spec::TrainerSpec;
use esvit_engine::{Device, DeviceKind, Pixels, StatePart, StepParameters, Trainer, TrainerPlan};
use napi::bindgen_prelude::Object;
use napi::{Env, Result};
use napi_derive::napi;
use serde_json::Value;

use crate::arrays::Lent;
use crate::batch::JsBatch;
use crate::failure::{CONFIG, ENGINE, STATE, failure, from_engine};
use crate::json::{Floats, Json, read};
use crate::machine::{open_gpu, read_device};
use crate::state::{JsTrainerState, give_state, take_state};
use crate::tensors::{TensorData, TensorShape, describe, take_all};
use crate::worker::Worker;

/// Mixing of the student's crops within the batch (view loss only).
#[napi(object, object_to_js = false, js_name = "Mixup")]
pub struct JsMixup {
    /// One factor for each crop: `x ← λ·x + (1 − λ)·x[reversed batch]`; 1 leaves the crop alone.
    pub lambda: Vec<f64>,
}

impl JsMixup {
    fn factors(self) -> Vec<f32> {
        self.lambda.into_iter().map(|lambda| lambda as f32).collect()
    }
}

/// A training run on a thread of its own. Calls run in order.
///
/// Every call throws or rejects with `ENGINE` after `dispose()`, after an internal error, and while 64 calls are waiting.
#[napi(js_name = "Trainer")]
pub struct JsTrainer {
    worker: Worker<Trainer>,
    plan: TrainerPlan,
    shapes: Vec<TensorShape>,
}

/// Reads a trainer's specification.
pub fn read_spec(spec: Value) -> Result<TrainerSpec> {
    read(spec, CONFIG, "the trainer's specification")
}

fn read_parameters(parameters: Value) -> Result<StepParameters> {
    read(parameters, ENGINE, "the step's parameters")
}

/// Plans what a trainer of this specification would need; takes milliseconds and no memory to speak of.
///
/// Throws `CONFIG` where the specification is malformed or cannot be built.
#[napi(ts_args_type = "spec: TrainerSpec, device: Device", ts_return_type = "TrainerPlan")]
pub fn plan_trainer(spec: Value, device: Value) -> Result<Json> {
    Json::of(TrainerPlan::new(&read_spec(spec)?, read_device(device)?).map_err(from_engine)?)
}

/// Builds a trainer from a complete specification; its steps run on the CPU or on the best GPU.
///
/// Throws `CONFIG` where the specification is malformed or cannot be built, `DEVICE` where there is no GPU or memory does not suffice.
#[napi(ts_args_type = "spec: TrainerSpec, device: Device")]
pub fn create_trainer(spec: Value, device: Value) -> Result<JsTrainer> {
    let spec = read_spec(spec)?;
    let trainer = match read_device(device)? {
        DeviceKind::Cpu => Trainer::new(spec, Device::Cpu),
        DeviceKind::Gpu => open_gpu().and_then(|gpu| Trainer::new(spec, Device::Gpu(gpu))),
    };
    let trainer = trainer.map_err(from_engine)?;
    let shapes = describe(&trainer.student().tensors_with(|view| view.to_no_values()));
    Ok(JsTrainer { plan: *trainer.plan(), shapes, worker: Worker::new("esvit-trainer", trainer)? })
}

#[napi]
impl JsTrainer {
    /// Memory and arithmetic of the run.
    #[napi(getter, ts_return_type = "TrainerPlan")]
    pub fn plan(&self) -> Result<Json> {
        Json::of(self.plan)
    }

    /// Names, shapes and types of the state dict, in order, without values.
    #[napi]
    pub fn describe(&self) -> Vec<TensorShape> {
        self.shapes.clone()
    }

    /// Makes one step. The batch is the trainer's until the promise settles.
    ///
    /// Throws `ENGINE` where an image of the batch is not written; rejects with `ENGINE` where the batch does not have the sizes of the
    /// specification, with `DEVICE` where the GPU was lost.
    #[napi(ts_args_type = "batch: Batch, parameters: StepParameters, mixup?: Mixup", ts_return_type = "Promise<StepStats>")]
    pub fn step<'env>(&self, env: &'env Env, batch: &JsBatch, parameters: Value, mixup: Option<JsMixup>) -> Result<Object<'env>> {
        let (parameters, lambda) = (read_parameters(parameters)?, mixup.map(JsMixup::factors));
        let pixels = batch.read()?;
        self.worker
            .call(env, move |trainer| trainer.step(Pixels::U8(&pixels), lambda.as_deref(), &parameters).map(Floats).map_err(from_engine))
    }

    /// Makes one step and times every operator; rejects as `step` does.
    #[napi(ts_args_type = "batch: Batch, parameters: StepParameters, mixup?: Mixup", ts_return_type = "Promise<ProfileRow[]>")]
    pub fn profile<'env>(&self, env: &'env Env, batch: &JsBatch, parameters: Value, mixup: Option<JsMixup>) -> Result<Object<'env>> {
        let (parameters, lambda) = (read_parameters(parameters)?, mixup.map(JsMixup::factors));
        let pixels = batch.read()?;
        self.worker.call(env, move |trainer| {
            trainer.profile(Pixels::U8(&pixels), lambda.as_deref(), &parameters).map_err(from_engine).and_then(Json::of)
        })
    }

    /// Copies the whole state.
    ///
    /// Rejects with `DEVICE` where the GPU was lost.
    #[napi(ts_return_type = "Promise<TrainerState>")]
    pub fn state<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        self.worker.call(env, |trainer| trainer.state().map_err(from_engine).and_then(give_state))
    }

    /// Describes the state without values, each `data` empty; `read` copies the values when they are needed.
    ///
    /// Rejects with `DEVICE` where the GPU was lost.
    #[napi(ts_return_type = "Promise<TrainerState>")]
    pub fn outline<'env>(&self, env: &'env Env) -> Result<Object<'env>> {
        self.worker.call(env, |trainer| trainer.outline().map_err(from_engine).and_then(give_state))
    }

    /// Copies the values of a tensor, by its place in the last outline, into an array of exactly their size; waits for steps under way.
    ///
    /// Throws `STATE` where there is no such tensor or its size is another.
    #[napi(ts_args_type = "part: StatePart, index: number, target: Uint8Array")]
    pub fn read(&self, part: Value, index: u32, mut target: Lent<u8>) -> Result<()> {
        const PIECE: usize = 4 << 20;
        let part: StatePart = read(part, STATE, "a part of the state")?;
        let target = target.get_mut()?;
        let size = target.len();
        // An empty target has one piece too: its size is checked like any other.
        for i in 0..size.div_ceil(PIECE).max(1) {
            let range = i * PIECE..size.min((i + 1) * PIECE);
            let piece = &mut target[range.clone()];
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

    /// Replaces the whole state.
    ///
    /// Throws or rejects with `STATE` where names, shapes or slots do not fit; nothing is changed then.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn load<'env>(&self, env: &'env Env, state: JsTrainerState) -> Result<Object<'env>> {
        let state = take_state(state)?;
        self.worker.call(env, move |trainer| trainer.load(state).map_err(from_engine))
    }

    /// Replaces parameters of both networks only (a pre-trained start).
    ///
    /// Throws or rejects with `STATE` where names or shapes do not all fit, unless `partial`; nothing is changed then.
    #[napi(ts_return_type = "Promise<LoadReport>")]
    pub fn load_weights<'env>(&self, env: &'env Env, weights: Vec<TensorData>, partial: bool) -> Result<Object<'env>> {
        let weights = take_all(weights)?;
        self.worker.call(env, move |trainer| trainer.load_weights(weights, partial).map_err(from_engine).and_then(Json::of))
    }

    /// Ends the engine's thread after the calls already made, and frees its memory. Later calls throw.
    #[napi]
    pub fn dispose(&mut self) {
        self.worker.dispose();
    }
}
