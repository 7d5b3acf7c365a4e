//! Crops of an encoded image, rendered on Node's thread pool.

use esvit_image::{CropPlan, Limits, render_all};
use napi::bindgen_prelude::{AsyncTask, Uint8Array};
use napi::{Env, Result, Task};
use napi_derive::napi;

use crate::arrays::Copied;
use crate::failure::{ENGINE, IMAGE, failure};
use crate::json::read;

/// One call of [`render_crops`].
pub struct RenderCrops {
    encoded: Vec<u8>,
    crops: serde_json::Value,
}

impl Task for RenderCrops {
    type Output = Vec<u8>;
    type JsValue = Uint8Array;

    fn compute(&mut self) -> Result<Vec<u8>> {
        let crops: Vec<CropPlan> = read(std::mem::take(&mut self.crops), ENGINE, "a crop plan")?;
        render_all(&self.encoded, &crops, &Limits::default()).map_err(|e| failure(IMAGE, e))
    }

    fn resolve(&mut self, _: Env, pixels: Vec<u8>) -> Result<Uint8Array> {
        Ok(pixels.into())
    }
}

/// Decodes an image once and renders every crop; the crops' pixels (8-bit RGB, rows top to bottom) follow each other in the result.
///
/// Rejects with `ENGINE` where a plan is malformed, with `IMAGE` where the image cannot be decoded or a crop lies outside it.
#[napi(ts_args_type = "encoded: Uint8Array, crops: CropPlan[]", ts_return_type = "Promise<Uint8Array>")]
pub fn render_crops(encoded: Copied<u8>, crops: serde_json::Value) -> AsyncTask<RenderCrops> {
    AsyncTask::new(RenderCrops { encoded: encoded.0, crops })
}
