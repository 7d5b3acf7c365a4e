//! Features of images, for evaluation.

mod cpu;
mod executor;
mod gpu;

use self::cpu::CpuForward;
use self::executor::ForwardExecutor;
use self::gpu::GpuForward;
use crate::forward::{self, CompiledForward};
use crate::profile::{self, ProfileRow};
use crate::spec::EncoderSpec;
use crate::tensor::Tensor;
use crate::{Device, Error, LoadReport, Result, Store};

/// A set of weights, and an executor of a compiled forward pass.
#[derive(Debug)]
pub struct Encoder {
    spec: EncoderSpec,
    forward: CompiledForward,
    store: Store,
    weights: WeightsPlace,
    pixels: Vec<u8>,
    executor: Box<dyn ForwardExecutor>,
}

/// Place of the weights. They are drawn and given to the executor when they are first needed: most encoders load others before that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum WeightsPlace {
    /// To be drawn from this seed.
    Random(u64),
    /// In the store.
    Stored,
    /// With the executor; the store has given up what the executor does not read from it.
    Taken,
}

impl Encoder {
    /// An encoder with random weights of seed 0.
    ///
    /// # Errors
    /// When the specification cannot be built, or the device cannot run it or has not enough memory.
    pub fn new(spec: EncoderSpec, device: Device) -> Result<Encoder> {
        if spec.batch == 0 {
            return Err(Error::Spec("batch must be at least 1".into()));
        }
        let forward = forward::build(&spec, device.kind())?;
        let pixels = vec![0; 3 * spec.batch * spec.image_size * spec.image_size];
        let store = Store::without_values(&forward.parameters);
        let executor: Box<dyn ForwardExecutor> = match device {
            Device::Cpu => Box::new(CpuForward::new(spec.threads, &forward)?),
            Device::Gpu(gpu) => Box::new(GpuForward::new(gpu, &forward, &store, pixels.len())?),
        };
        Ok(Encoder { spec, forward, store, weights: WeightsPlace::Random(0), pixels, executor })
    }

    /// Channels of a feature.
    pub fn width(&self) -> usize {
        self.forward.widths.iter().sum()
    }

    /// Bytes of weights and activations, once there was a pass.
    pub fn memory(&self) -> usize {
        self.store.bytes() + self.executor.weight_bytes() + self.forward.program.arena_bytes()
    }

    /// Matrix-product arithmetic of one pass over `batch` images.
    pub fn flops(&self) -> u64 {
        self.forward.program.flops()
    }

    /// Replaces the weights. Tensors of heads are not the backbone's and are passed over; everything else must fit.
    ///
    /// # Errors
    /// When a name or a shape does not fit; then nothing is changed.
    pub fn load(&mut self, mut weights: Vec<Tensor>) -> Result<LoadReport> {
        weights.retain(|t| !t.name.starts_with("head.") && !t.name.starts_with("head_dense."));
        let report = self.store.load(weights, false)?;
        self.weights = WeightsPlace::Stored;
        Ok(report)
    }

    /// Draws the weights that a run with this seed starts with.
    pub fn initialize(&mut self, seed: u64) {
        self.weights = WeightsPlace::Random(seed);
    }

    /// Gives the weights to the executor, unless it has them.
    fn give_weights(&mut self) {
        if self.weights == WeightsPlace::Taken {
            return;
        }
        self.executor.release_weights(); // The old ones go before the new ones come.
        if let WeightsPlace::Random(seed) = self.weights {
            self.store = Store::new(&self.forward.parameters, seed);
        }
        self.executor.take_weights(&self.forward, &mut self.store);
        self.weights = WeightsPlace::Taken;
    }

    /// `count` images, 8-bit (height, width, channel) → `[count, width]`.
    ///
    /// # Errors
    /// When the pixels are not those of `count` images.
    pub fn encode(&mut self, pixels: &[u8], count: usize) -> Result<Vec<f32>> {
        let per_image = 3 * self.spec.image_size * self.spec.image_size;
        if pixels.len() != count * per_image {
            return Err(Error::Input { what: "the pixels", want: count * per_image, got: pixels.len() });
        }
        self.give_weights();
        let width = self.width();
        let mut features = vec![0.0; count * width];
        for (chunk, out) in pixels.chunks(self.spec.batch * per_image).zip(features.chunks_mut(self.spec.batch * width)) {
            // A last, smaller chunk runs with what is left of the one before; those features are not copied out.
            self.pixels[..chunk.len()].copy_from_slice(chunk);
            let mut column = 0;
            let blocks = self.executor.run(&self.forward, &self.store, &self.pixels, None)?;
            for (block, w) in blocks.iter().zip(&self.forward.widths) {
                for (row, out) in out.chunks_mut(width).enumerate() {
                    out[column..column + w].copy_from_slice(&block[row * w..][..*w]);
                }
                column += w;
            }
        }
        Ok(features)
    }

    /// Runs one more pass over the images encoded last, split by operator.
    ///
    /// # Errors
    /// When the GPU is lost or cannot tell times.
    pub fn profile(&mut self) -> Result<Vec<ProfileRow>> {
        self.give_weights();
        let mut times = Vec::new();
        self.executor.run(&self.forward, &self.store, &self.pixels, Some(&mut times))?;
        Ok(profile::rows(&times))
    }
}
