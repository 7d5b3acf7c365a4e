//! A trainer's state between JavaScript and the engine.

use std::collections::BTreeMap;

use esvit_engine::{OptimizerState, TrainerState};
use napi::Result;
use napi_derive::napi;
use serde_json::Value;

use crate::failure::STATE;
use crate::json::{plain, read};
use crate::tensors::{TensorData, give_all, take_all};

/// Everything a run needs to continue bit for bit, apart from the position in the data.
#[napi(object, js_name = "TrainerState")]
pub struct JsTrainerState {
    /// The student's state dict in the original's order and names, without `module.`.
    pub student: Vec<TensorData>,
    /// The teacher's state dict.
    pub teacher: Vec<TensorData>,
    /// `center` and, with the region loss, `center_grid`; each `[1, K]`.
    pub loss: Vec<TensorData>,
    /// The optimizer's moments and counts.
    #[napi(ts_type = "OptimizerState")]
    pub optimizer: JsOptimizerState,
    /// Loss scaling of mixed precision on a GPU.
    #[napi(ts_type = "LossScaler")]
    pub scaler: Option<Value>,
}

/// Moments and counts of the update rule.
#[napi(object, js_name = "OptimizerState")]
pub struct JsOptimizerState {
    /// Update rule.
    #[napi(ts_type = "OptimizerKind")]
    pub kind: Value,
    /// Names of the trainable parameters with weight decay.
    pub decayed: Vec<String>,
    /// Names of the trainable parameters without weight decay.
    pub not_decayed: Vec<String>,
    /// Updates made to each parameter, by name; last layers lag while they are frozen.
    pub steps: BTreeMap<String, u32>,
    /// Moment tensors named `<slot>/<parameter>`: slots `exp_avg` and `exp_avg_sq` (AdamW), `momentum_buffer` (SGD), `mu` (LARS).
    /// Parameters never updated are absent.
    pub slots: Vec<TensorData>,
}

/// The state for JavaScript.
pub fn give_state(state: TrainerState) -> Result<JsTrainerState> {
    let o = state.optimizer;
    Ok(JsTrainerState {
        student: give_all(state.student),
        teacher: give_all(state.teacher),
        loss: give_all(state.loss),
        optimizer: JsOptimizerState {
            kind: plain(o.kind)?,
            decayed: o.decayed,
            not_decayed: o.not_decayed,
            steps: o.steps,
            slots: give_all(o.slots),
        },
        scaler: state.scaler.map(plain).transpose()?,
    })
}

/// The state for the engine.
pub fn take_state(state: JsTrainerState) -> Result<TrainerState> {
    let o = state.optimizer;
    Ok(TrainerState {
        optimizer: OptimizerState {
            kind: read(o.kind, STATE, "the optimizer's kind")?,
            decayed: o.decayed,
            not_decayed: o.not_decayed,
            steps: o.steps,
            slots: take_all(o.slots)?,
        },
        student: take_all(state.student)?,
        teacher: take_all(state.teacher)?,
        loss: take_all(state.loss)?,
        scaler: state.scaler.map(|scaler| read(scaler, STATE, "the loss scaler")).transpose()?,
    })
}
