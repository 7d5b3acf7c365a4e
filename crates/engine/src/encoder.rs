//! A backbone's features, for evaluation.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
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
    staging: Vec<u8>,
    device: Device,
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
        let allocate = |i: usize| gpu.allocate("weights", 4 * store.values(i).len() as u64);
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

    fn upload(&self, store: &Store) {
        for (i, view) in self.weights.iter().enumerate() {
            self.gpu.upload(view, bytemuck::cast_slice(store.values(i)));
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
        let mut encoder = Encoder::with(spec, true, device)?;
        encoder.place();
        Ok(encoder)
    }

    /// The same on a GPU.
    ///
    /// # Errors
    /// When the specification cannot be built, an operator has no kernels, or the GPU has not enough memory.
    pub fn on_gpu(spec: EncoderSpec, gpu: Gpu) -> Result<Encoder> {
        let device = |forward: &Forward, store: &Store, pixels| Ok(Device::Gpu(Box::new(GpuForward::new(gpu, forward, store, pixels)?)));
        let mut encoder = Encoder::with(spec, false, device)?;
        encoder.place();
        Ok(encoder)
    }

    fn with(spec: EncoderSpec, fuse: bool, device: impl FnOnce(&Forward, &Store, usize) -> Result<Device>) -> Result<Encoder> {
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
        let mut forward = network::build_forward(&spec.backbone, images, DType::U8, wanted, fuse)?;
        forward.program = forward.program.with_precision(spec.precision.into());
        let store = Store::new(&forward.parameters, TEACHER, 0);
        let device = device(&forward, &store, staging.len())?;
        Ok(Encoder { spec, forward, store, staging, device })
    }

    /// Brings the weights to where the program reads them: the GPU, or the order of its products.
    fn place(&mut self) {
        match &mut self.device {
            Device::Gpu(run) => run.upload(&self.store),
            Device::Cpu { pool, constants, .. } => {
                *constants = Constants::default();
                let program = &self.forward.program;
                let mut bindings = Bindings::new();
                self.store.bind(&mut bindings);
                *constants = pool.install(|| program.prepare(&bindings));
                let replaced: HashSet<&str> = program.replaced(constants).collect();
                self.store.forget(|leaf| replaced.contains(leaf));
            }
        }
    }

    /// Channels of a feature.
    pub fn width(&self) -> usize {
        self.forward.widths.iter().sum()
    }

    /// Bytes of weights and activations.
    pub fn memory(&self) -> usize {
        let constants = match &self.device {
            Device::Cpu { constants, .. } => constants.bytes(),
            Device::Gpu(_) => 0,
        };
        self.store.bytes() + constants + self.forward.program.arena_bytes()
    }

    /// Matrix-product arithmetic of one pass over `batch` images.
    pub fn flops(&self) -> u64 {
        self.forward.program.flops()
    }

    /// Replaces the weights. Tensors of heads are not the backbone's and are passed over; everything else must fit.
    pub fn load(&mut self, weights: &[Tensor]) -> Result<LoadReport> {
        let backbone: Vec<Tensor> =
            weights.iter().filter(|t| !t.name.starts_with("head.") && !t.name.starts_with("head_dense.")).cloned().collect();
        let report = self.store.load(&backbone, false)?;
        self.place();
        Ok(report)
    }

    /// Weights as a run with this seed starts with.
    pub fn initialise(&mut self, seed: u64) {
        self.store = Store::new(&self.forward.parameters, TEACHER, seed);
        self.place();
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
        let Encoder { forward, store, staging, device, .. } = self;
        let program = &forward.program;
        match device {
            Device::Cpu { pool, arena, constants } => {
                let mut bindings = Bindings::new();
                store.bind(&mut bindings);
                bindings.bind("pixels", Slice::U8(staging));
                let (pool, constants) = (&*pool, &*constants);
                pool.install(|| program.run_prepared(constants, arena, &bindings, pool, times))?;
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
