//! `Encoder`: features of images.

use esvit_engine::spec::EncoderSpec;
use esvit_engine::{Device, DeviceKind, Encoder};
use napi::bindgen_prelude::{Float32Array, Object};
use napi::{Env, Result};
use napi_derive::napi;
use serde_json::Value;

use crate::arrays::Copied;
use crate::failure::{CONFIG, from_engine};
use crate::json::read;
use crate::machine::{open_gpu, read_device};
use crate::tensors::{TensorData, take_all};
use crate::worker::Worker;

/// A forward pass for evaluation, on a thread of its own. Calls run in order.
///
/// Every call throws or rejects with `ENGINE` after `dispose()`, after an internal error, and while 64 calls are waiting.
#[napi(js_name = "Encoder")]
pub struct JsEncoder {
    worker: Worker<Encoder>,
    width: u32,
}

/// Builds an encoder from a complete specification; it runs on the CPU or on the best GPU.
///
/// Throws `CONFIG` where the specification is malformed or cannot be built, `DEVICE` where there is no GPU or it has too little memory.
#[napi(ts_args_type = "spec: EncoderSpec, device: Device")]
pub fn create_encoder(spec: Value, device: Value) -> Result<JsEncoder> {
    let spec: EncoderSpec = read(spec, CONFIG, "the encoder's specification")?;
    let encoder = match read_device(device)? {
        DeviceKind::Cpu => Encoder::new(spec, Device::Cpu),
        DeviceKind::Gpu => open_gpu().and_then(|gpu| Encoder::new(spec, Device::Gpu(gpu))),
    };
    let encoder = encoder.map_err(from_engine)?;
    Ok(JsEncoder { width: encoder.width() as u32, worker: Worker::new("esvit-encoder", encoder)? })
}

#[napi]
impl JsEncoder {
    /// Values of one image's features.
    #[napi(getter)]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Replaces the weights; every parameter of the backbone must be there.
    ///
    /// Throws or rejects with `STATE` where names, shapes or types do not fit; nothing is changed then.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn load<'env>(&self, env: &'env Env, weights: Vec<TensorData>) -> Result<Object<'env>> {
        let weights = take_all(weights)?;
        self.worker.call(env, move |encoder| encoder.load(weights).map(|_| ()).map_err(from_engine))
    }

    /// Draws the weights as at the start of a training run with this seed.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn initialize<'env>(&self, env: &'env Env, seed: f64) -> Result<Object<'env>> {
        self.worker.call(env, move |encoder| {
            encoder.initialize(seed as u64);
            Ok(())
        })
    }

    /// Encodes `count` images of size² (8-bit RGB, rows top to bottom) into `[count, width]` features, not normalized.
    ///
    /// Rejects with `ENGINE` where the number of bytes is not that of `count` images, with `DEVICE` where the GPU was lost.
    #[napi(ts_args_type = "pixels: Uint8Array, count: number", ts_return_type = "Promise<Float32Array>")]
    pub fn encode<'env>(&self, env: &'env Env, Copied(pixels): Copied<u8>, count: u32) -> Result<Object<'env>> {
        self.worker.call(env, move |encoder| encoder.encode(&pixels, count as usize).map(Float32Array::from).map_err(from_engine))
    }

    /// Ends the engine's thread after the calls already made, and frees its memory. Later calls throw.
    #[napi]
    pub fn dispose(&mut self) {
        self.worker.dispose();
    }
}
