//! Pixels of a step.

use esvit_engine::Pixels;
use napi::bindgen_prelude::Uint8Array;
use napi_derive::napi;

/// Pixels of a step: 8-bit RGB, rows top to bottom.
#[napi(object, object_to_js = false, js_name = "StepCrops")]
pub struct JsCrops {
    /// 2·B images of globalSize², all images of crop 0 first.
    pub global: Uint8Array,
    /// localCount·B images of localSize²; empty when there are none.
    pub local: Uint8Array,
    /// Mixes the student's crops and matches them with soft targets; the teacher's stay as they are.
    #[napi(ts_type = "Mixup")]
    pub mixup: Option<JsMixup>,
}

/// Mixing of the student's crops within the batch (view loss only).
#[napi(object, object_to_js = false, js_name = "Mixup")]
pub struct JsMixup {
    /// One factor for each crop: `x ← λ·x + (1 − λ)·x[reversed batch]`; 1 leaves the crop alone.
    pub lambda: Vec<f64>,
}

impl JsCrops {
    /// The pixels as the engine takes them.
    pub fn pixels(&self) -> Pixels<'_> {
        Pixels::U8 { global: &self.global, local: &self.local }
    }

    /// Factors of the mixing.
    pub fn lambda(&self) -> Option<Vec<f32>> {
        self.mixup.as_ref().map(|m| m.lambda.iter().map(|&l| l as f32).collect())
    }
}
