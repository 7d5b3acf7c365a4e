//! A backbone's features, for evaluation.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use esvit_gpu::{Gpu, Recorder, Recording, View};
use esvit_graph::{Arena, Bindings, Constants, DType, GpuArena, NodeTime, Slice, Value};
use esvit_ops::{Layout, Segment};
use esvit_simd::Pool;

use crate::network::{self, Forward, TEACHER, Wanted};
use crate::profile::{self, ProfileRow};
use crate::spec::{EncoderSpec, FeatureOutput};
use crate::{Error, LoadReport, Result, Store, Tensor};

/// A compiled forward pass with its weights.
#[derive(Debug)]
pub struct Encoder {
    spec: EncoderSpec,
    forward: Forward,
    store: Store,
    weights: Weights,
    staging: Vec<u8>,
    device: Device,
}

/// Where the weights are. They are drawn and brought to where the program reads them when they are first needed: most encoders load others before
/// that.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Weights {
    /// To be drawn from this seed.
    Drawn(u64),
    /// In the store.
    Stored,
    /// On the GPU, or in the order of the products; what the program does not read from the store was freed there.
    Placed,
}

/// What runs the program.
#[derive(Debug)]
enum Device {
    Cpu {
        pool: Pool,
        arena: Arena,
        /// Weights in the order of the products.
        constants: Constants,
    },
    Gpu(Box<GpuForward>),
}

/// The forward pass recorded for a GPU.
#[derive(Debug)]
struct GpuForward {
    gpu: Gpu,
    recording: Recording,
    arena: GpuArena,
    /// Of each entry of the store.
    weights: Vec<View>,
    pixels: View,
}

impl GpuForward {
    fn new(gpu: Gpu, forward: &Forward, store: &Store, pixel_bytes: usize) -> Result<GpuForward> {
        let allocate = |i: usize| gpu.allocate("weights", 4 * store.floats(i) as u64);
        let weights = (0..store.entries().len()).map(allocate).collect::<std::result::Result<Vec<_>, _>>()?;
        let pixels = gpu.allocate("pixels", pixel_bytes as u64)?;
        let mut leaves: HashMap<String, View> =
            weights.iter().enumerate().map(|(i, view)| (store.leaf(i).to_string(), view.clone())).collect();
        leaves.insert("pixels".into(), pixels.clone());
        let arena = forward.program.gpu_arena(&gpu)?;
        let mut rec = Recorder::new(&gpu);
        forward.program.record(&mut rec, &arena, &leaves)?;
        let recording = rec.finish()?;
        Ok(GpuForward { gpu, recording, arena, weights, pixels })
    }

    /// Copies the weights to the GPU; the store gives them up.
    fn take(&self, store: &mut Store) {
        for (i, view) in self.weights.iter().enumerate() {
            self.gpu.upload(view, bytemuck::cast_slice(store.values(i)));
            *store.values_mut(i) = Vec::new();
        }
    }
}

impl Encoder {
    /// An encoder with weights drawn from seed 0.
    ///
    /// # Errors
    /// When the specification cannot be built.
    pub fn new(spec: EncoderSpec) -> Result<Encoder> {
        let threads = spec.threads;
        let device = |forward: &Forward, _: &Store, _| {
            Ok(Device::Cpu { pool: Pool::new(threads)?, arena: forward.program.arena(), constants: Constants::default() })
        };
        Encoder::with(spec, true, device)
    }

    /// The same on a GPU.
    ///
    /// # Errors
    /// When the specification cannot be built, an operator has no kernels, or the GPU has not enough memory.
    pub fn on_gpu(spec: EncoderSpec, gpu: Gpu) -> Result<Encoder> {
        let device = |forward: &Forward, store: &Store, pixels| Ok(Device::Gpu(Box::new(GpuForward::new(gpu, forward, store, pixels)?)));
        Encoder::with(spec, false, device)
    }

    fn with(spec: EncoderSpec, cpu: bool, device: impl FnOnce(&Forward, &Store, usize) -> Result<Device>) -> Result<Encoder> {
        if spec.batch == 0 {
            return Err(Error::Spec("batch must be at least 1".into()));
        }
        let images = Layout::new(vec![Segment { images: spec.batch, height: spec.image_size, width: spec.image_size }]);
        let staging = vec![0; 3 * images.tokens()];
        let wanted = match spec.output {
            FeatureOutput::View => Wanted::View,
            FeatureOutput::LastBlocks(n) => Wanted::LastBlocks(n),
            FeatureOutput::LastBlocksAndRegions(n) => Wanted::LastBlocksAndRegions(n),
        };
        let mut forward = network::build_forward(&spec.backbone, images, DType::U8, wanted, cpu)?;
        forward.program = forward.program.with_precision(spec.precision.into());
        if cpu {
            forward.program = forward.program.with_bf16x2();
        }
        let store = Store::without_values(&forward.parameters, TEACHER);
        let device = device(&forward, &store, staging.len())?;
        Ok(Encoder { spec, forward, store, weights: Weights::Drawn(0), staging, device })
    }

    /// Brings the weights to where the program reads them, unless they are there.
    fn place(&mut self) {
        if self.weights == Weights::Placed {
            return;
        }
        if let Device::Cpu { constants, .. } = &mut self.device {
            *constants = Constants::default(); // The old ones go before the new ones come.
        }
        if let Weights::Drawn(seed) = self.weights {
            self.store = Store::new(&self.forward.parameters, TEACHER, seed);
        }
        match &mut self.device {
            Device::Gpu(run) => run.take(&mut self.store),
            Device::Cpu { pool, constants, .. } => {
                let (program, store) = (&self.forward.program, &mut self.store);
                *constants = pool.install(|| program.prepack(store));
            }
        }
        self.weights = Weights::Placed;
    }

    /// Channels of a feature.
    pub fn width(&self) -> usize {
        self.forward.widths.iter().sum()
    }

    /// Bytes of weights and activations, once there was a pass.
    pub fn memory(&self) -> usize {
        let weights = match &self.device {
            Device::Cpu { constants, .. } => self.store.bytes() + constants.bytes(),
            Device::Gpu(run) => run.weights.iter().map(|view| view.bytes() as usize).sum(),
        };
        weights + self.forward.program.arena_bytes()
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
        self.weights = Weights::Stored;
        Ok(report)
    }

    /// Weights as a run with this seed starts with.
    pub fn initialize(&mut self, seed: u64) {
        self.weights = Weights::Drawn(seed);
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
        let width = self.width();
        let mut features = vec![0.0; count * width];
        for (chunk, out) in pixels.chunks(self.spec.batch * per_image).zip(features.chunks_mut(self.spec.batch * width)) {
            // A last, smaller chunk runs with what is left of the one before; those features are not copied out.
            self.staging[..chunk.len()].copy_from_slice(chunk);
            let widths = self.forward.widths.clone();
            let mut column = 0;
            for (block, w) in self.run(None)?.iter().zip(&widths) {
                for (row, out) in out.chunks_mut(width).enumerate() {
                    out[column..column + w].copy_from_slice(&block[row * w..][..*w]);
                }
                column += w;
            }
        }
        Ok(features)
    }

    /// One more pass over the images encoded last, split by operator.
    ///
    /// # Errors
    /// When the GPU is lost or cannot tell times.
    pub fn profile(&mut self) -> Result<Vec<ProfileRow>> {
        let mut times = Vec::new();
        self.run(Some(&mut times))?;
        Ok(profile::rows(&times))
    }

    /// Runs the program on the staged pixels; its outputs, each `[batch, width]`.
    fn run(&mut self, times: Option<&mut Vec<NodeTime>>) -> Result<Vec<Cow<'_, [f32]>>> {
        self.place();
        let Encoder { forward, store, staging, device, .. } = self;
        let program = &forward.program;
        match device {
            Device::Cpu { pool, arena, constants } => {
                let mut bindings = Bindings::new();
                store.bind(&mut bindings);
                bindings.bind("pixels", Slice::U8(staging));
                let (pool, constants) = (&*pool, &*constants);
                pool.install(|| program.run_prepacked(constants, arena, &bindings, pool, times))?;
                let arena = &*arena;
                Ok(forward.outputs.iter().map(|value| Cow::Borrowed(program.output(arena, *value).f32())).collect())
            }
            Device::Gpu(run) => {
                run.gpu.upload(&run.pixels, staging);
                match times {
                    None => run.recording.run(&run.gpu)?,
                    Some(times) => times.extend(run.recording.profile(&run.gpu)?.into_iter().map(|t| {
                        // Kernels of one operator share its arithmetic, which they do not know.
                        NodeTime { op: t.name, phase: t.phase, time: Duration::from_secs_f64(t.seconds), flops: 0 }
                    })),
                }
                let read = |value: &Value| Ok(Cow::Owned(run.gpu.read_f32(&program.gpu_output(&run.arena, *value))?));
                forward.outputs.iter().map(read).collect()
            }
        }
    }
}
