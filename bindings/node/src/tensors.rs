//! Tensors and states between JavaScript and the engine.

use std::collections::HashMap;

use esvit_engine::spec::OptimizerKind;
use esvit_engine::{LossScaler, OptimizerState, StatePart, Tensor, TensorValues, TrainerState};
use napi::Result;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

use crate::failure::{STATE, failure};

#[napi(object)]
pub struct TensorData {
    pub name: String,
    pub shape: Vec<u32>,
    pub dtype: String,
    pub data: Uint8Array,
}

#[napi(object)]
#[derive(Clone)]
pub struct TensorShape {
    pub name: String,
    pub shape: Vec<u32>,
    pub dtype: String,
}

#[napi(object)]
pub struct TrainerStateData {
    pub student: Vec<TensorData>,
    pub teacher: Vec<TensorData>,
    pub loss: Vec<TensorData>,
    pub optimizer: OptimizerData,
    pub scaler: Option<LossScalerData>,
}

#[napi(object)]
pub struct LossScalerData {
    pub scale: f64,
    pub growth_factor: f64,
    pub backoff_factor: f64,
    pub growth_interval: u32,
    pub growth_tracker: u32,
}

#[napi(object)]
pub struct OptimizerData {
    pub kind: String,
    pub decayed: Vec<String>,
    pub not_decayed: Vec<String>,
    pub steps: HashMap<String, u32>,
    pub slots: Vec<TensorData>,
}

/// A list of tensors in a state, by its field.
pub fn state_part(field: &str) -> Result<StatePart> {
    match field {
        "student" => Ok(StatePart::Student),
        "teacher" => Ok(StatePart::Teacher),
        "loss" => Ok(StatePart::Loss),
        "slots" => Ok(StatePart::Slots),
        other => Err(failure(STATE, format_args!("`{other}` is no part of a state"))),
    }
}

fn dimensions(shape: &[usize]) -> Vec<u32> {
    shape.iter().map(|&n| n as u32).collect()
}

fn dtype(values: &TensorValues) -> &'static str {
    match values {
        TensorValues::F32(_) => "f32",
        TensorValues::I64(_) => "i64",
    }
}

/// Names, shapes and types of tensors, in order.
pub fn describe(tensors: &[Tensor]) -> Vec<TensorShape> {
    let one = |t: &Tensor| TensorShape { name: t.name.clone(), shape: dimensions(&t.shape), dtype: dtype(&t.values).into() };
    tensors.iter().map(one).collect()
}

fn give(tensor: Tensor) -> TensorData {
    let bytes = match &tensor.values {
        TensorValues::F32(v) => bytemuck::cast_slice::<f32, u8>(v).to_vec(),
        TensorValues::I64(v) => bytemuck::cast_slice::<i64, u8>(v).to_vec(),
    };
    TensorData { name: tensor.name, shape: dimensions(&tensor.shape), dtype: dtype(&tensor.values).into(), data: bytes.into() }
}

/// The engine's tensor; the number of bytes must be the shape's.
fn take(tensor: TensorData) -> Result<Tensor> {
    let shape: Vec<usize> = tensor.shape.iter().map(|&n| n as usize).collect();
    let volume = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let size = match tensor.dtype.as_str() {
        "f32" => 4,
        "i64" => 8,
        other => return Err(failure(STATE, format_args!("`{}` has type {other}; f32 and i64 are known", tensor.name))),
    };
    let bytes: &[u8] = &tensor.data;
    if volume.and_then(|n| n.checked_mul(size)) != Some(bytes.len()) {
        return Err(failure(STATE, format_args!("`{}` has {} bytes, which is not its shape {shape:?}", tensor.name, bytes.len())));
    }
    let values = match size {
        4 => TensorValues::F32(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()),
        _ => TensorValues::I64(bytes.chunks_exact(8).map(|b| i64::from_le_bytes(std::array::from_fn(|i| b[i]))).collect()),
    };
    Ok(Tensor { name: tensor.name, shape, values })
}

pub fn give_all(tensors: Vec<Tensor>) -> Vec<TensorData> {
    tensors.into_iter().map(give).collect()
}

pub fn take_all(tensors: Vec<TensorData>) -> Result<Vec<Tensor>> {
    tensors.into_iter().map(take).collect()
}

pub fn give_state(state: TrainerState) -> TrainerStateData {
    let o = state.optimizer;
    TrainerStateData {
        student: give_all(state.student),
        teacher: give_all(state.teacher),
        loss: give_all(state.loss),
        optimizer: OptimizerData {
            kind: match o.kind {
                OptimizerKind::Adamw => "adamw",
                OptimizerKind::Sgd => "sgd",
                OptimizerKind::Lars => "lars",
            }
            .into(),
            decayed: o.decayed,
            not_decayed: o.not_decayed,
            steps: o.steps.into_iter().collect(),
            slots: give_all(o.slots),
        },
        scaler: state.scaler.map(|s| LossScalerData {
            scale: s.scale.into(),
            growth_factor: s.growth_factor.into(),
            backoff_factor: s.backoff_factor.into(),
            growth_interval: s.growth_interval,
            growth_tracker: s.growth_tracker,
        }),
    }
}

pub fn take_state(state: TrainerStateData) -> Result<TrainerState> {
    let o = state.optimizer;
    let kind = match o.kind.as_str() {
        "adamw" => OptimizerKind::Adamw,
        "sgd" => OptimizerKind::Sgd,
        "lars" => OptimizerKind::Lars,
        other => return Err(failure(STATE, format_args!("the optimizer `{other}` is not known"))),
    };
    Ok(TrainerState {
        student: take_all(state.student)?,
        teacher: take_all(state.teacher)?,
        loss: take_all(state.loss)?,
        optimizer: OptimizerState {
            kind,
            decayed: o.decayed,
            not_decayed: o.not_decayed,
            steps: o.steps.into_iter().collect(),
            slots: take_all(o.slots)?,
        },
        scaler: state.scaler.map(|s| LossScaler {
            scale: s.scale as f32,
            growth_factor: s.growth_factor as f32,
            backoff_factor: s.backoff_factor as f32,
            growth_interval: s.growth_interval,
            growth_tracker: s.growth_tracker,
        }),
    })
}
