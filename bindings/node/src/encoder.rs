//! `Encoder`: features of images.

use esvit_engine::Encoder;
use napi::bindgen_prelude::{Float32Array, Object, Uint8Array};
use napi::{Env, Result};
use napi_derive::napi;

use crate::failure::{CONFIG, failure, from_engine};
use crate::functions::{Device, open_gpu};
use crate::tensors::{TensorData, take_all};
use crate::worker::Worker;

/// A forward pass on a thread of its own.
#[napi(js_name = "Encoder")]
pub struct JsEncoder {
    worker: Worker<Encoder>,
    width: u32,
}

/// Builds an encoder from a complete specification; it runs on the CPU or on the best GPU.
#[napi]
pub fn create_encoder(spec: serde_json::Value, device: Device) -> Result<JsEncoder> {
    let spec = serde_json::from_value(spec).map_err(|e| failure(CONFIG, format_args!("the encoder's specification: {e}")))?;
    let encoder = match device {
        Device::cpu => Encoder::new(spec, esvit_engine::Device::Cpu),
        Device::gpu => open_gpu().and_then(|gpu| Encoder::new(spec, esvit_engine::Device::Gpu(gpu))),
    };
    let encoder = encoder.map_err(from_engine)?;
    Ok(JsEncoder { width: encoder.width() as u32, worker: Worker::new("esvit-encoder", encoder)? })
}

#[napi]
impl JsEncoder {
    #[napi(getter)]
    pub fn width(&self) -> u32 {
        self.width
    }

    #[napi(ts_return_type = "Promise<void>")]
    pub fn load<'env>(&self, env: &'env Env, weights: Vec<TensorData>) -> Result<Object<'env>> {
        let weights = take_all(weights)?;
        self.worker.call(env, move |encoder| encoder.load(weights).map(|_| ()).map_err(from_engine))
    }

    #[napi(ts_return_type = "Promise<void>")]
    pub fn initialize<'env>(&self, env: &'env Env, seed: f64) -> Result<Object<'env>> {
        self.worker.call(env, move |encoder| {
            encoder.initialize(seed as u64);
            Ok(())
        })
    }

    #[napi(ts_return_type = "Promise<Float32Array>")]
    pub fn encode<'env>(&self, env: &'env Env, pixels: Uint8Array, count: u32) -> Result<Object<'env>> {
        self.worker.call(env, move |encoder| encoder.encode(&pixels, count as usize).map(Float32Array::from).map_err(from_engine))
    }

    #[napi]
    pub fn dispose(&mut self) {
        self.worker.dispose();
    }
}
