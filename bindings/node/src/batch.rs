//! `Batch`: pixels of a step that JavaScript cannot touch. It holds the handle, the renderer writes, the trainer reads.

use std::sync::Arc;

use esvit_engine::{Batch, BatchReader, PlaceWriter};
use esvit_image::{CropPlan, Limits, render_into};
use napi::bindgen_prelude::AsyncTask;
use napi::{Env, Result, Task};
use napi_derive::napi;
use serde_json::Value;

use crate::arrays::Copied;
use crate::failure::{ENGINE, IMAGE, failure, from_engine};
use crate::json::read;

/// Pixels of one step in the engine's memory: a place for each image, with all its crops. A trainer reads a batch in place, once every
/// place is written.
#[napi(js_name = "Batch")]
pub struct JsBatch {
    batch: Option<Arc<Batch>>,
}

/// Makes a batch whose places are free.
///
/// Throws `ENGINE` where the layout is malformed, `CONFIG` where it has no images or no pixels.
#[napi(ts_args_type = "layout: BatchLayout")]
pub fn create_batch(layout: Value) -> Result<JsBatch> {
    let layout = read(layout, ENGINE, "the batch's layout")?;
    Ok(JsBatch { batch: Some(Batch::new(layout).map_err(from_engine)?) })
}

/// One call of [`JsBatch::render_into`].
pub struct RenderInto {
    encoded: Vec<u8>,
    crops: Vec<CropPlan>,
    place: Option<PlaceWriter>,
}

impl Task for RenderInto {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> Result<()> {
        let mut place = self.place.take().ok_or_else(|| failure(ENGINE, "the image was rendered already"))?;
        render_into(&self.encoded, &self.crops, &mut place.crops(), &Limits::default()).map_err(|e| failure(IMAGE, e))?;
        place.finish();
        Ok(())
    }

    fn resolve(&mut self, _: Env, (): ()) -> Result<()> {
        Ok(())
    }
}

#[napi]
impl JsBatch {
    /// Decodes an image once, on Node's thread pool, and writes crop `i` as `crops[i]` says to the place `image`. The place is taken
    /// from the call on, and free again after a failure.
    ///
    /// Throws `ENGINE` where a plan is malformed, there are more or fewer plans than crops, or the place is not free; rejects with
    /// `IMAGE` where the image cannot be decoded, a crop lies outside it or has another size than the batch's.
    #[napi(ts_args_type = "encoded: Uint8Array, image: number, crops: CropPlan[]", ts_return_type = "Promise<void>")]
    pub fn render_into(&self, encoded: Copied<u8>, image: u32, crops: Value) -> Result<AsyncTask<RenderInto>> {
        let crops: Vec<CropPlan> = read(crops, ENGINE, "a crop plan")?;
        let batch = self.batch()?;
        let count = batch.layout().crops();
        if crops.len() != count {
            return Err(failure(ENGINE, format_args!("the batch has {count} crops of each image, got {} plans", crops.len())));
        }
        let place = batch.write(image as usize).map_err(from_engine)?;
        Ok(AsyncTask::new(RenderInto { encoded: encoded.0, crops, place: Some(place) }))
    }

    /// Makes all places free again.
    ///
    /// Throws `ENGINE` while a trainer has the batch or an image is being rendered into it.
    #[napi]
    pub fn clear(&self) -> Result<()> {
        self.batch()?.clear().map_err(from_engine)
    }

    /// Frees the memory, as soon as no task uses it. Later calls throw `ENGINE`.
    #[napi]
    pub fn dispose(&mut self) {
        self.batch = None;
    }
}

impl JsBatch {
    /// Claims all pixels for a trainer.
    pub fn read(&self) -> Result<BatchReader> {
        self.batch()?.read().map_err(from_engine)
    }

    fn batch(&self) -> Result<&Arc<Batch>> {
        self.batch.as_ref().ok_or_else(|| failure(ENGINE, "the batch was disposed of"))
    }
}
