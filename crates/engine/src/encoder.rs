//! A backbone's features, for evaluation.

use esvit_graph::{Arena, Bindings, DType, Slice, Variant};
use esvit_ops::{Layout, Segment};
use esvit_simd::Pool;

use crate::network::{self, Forward, TEACHER, Wanted};
use crate::spec::{EncoderSpec, FeatureOutput};
use crate::{Error, LoadReport, Result, Store, Tensor};

/// A compiled forward pass with its weights.
#[derive(Debug)]
pub struct Encoder {
    spec: EncoderSpec,
    pool: Pool,
    forward: Forward,
    arena: Arena,
    store: Store,
    staging: Vec<u8>,
}

impl Encoder {
    /// An encoder with weights drawn from seed 0.
    ///
    /// # Errors
    /// When the specification cannot be built.
    pub fn new(spec: EncoderSpec) -> Result<Encoder> {
        if spec.batch == 0 {
            return Err(Error::Spec("batch must be at least 1".into()));
        }
        let pool = Pool::new(spec.threads)?;
        let images = Layout::new(vec![Segment { images: spec.batch, height: spec.image_size, width: spec.image_size }]);
        let staging = vec![0; 3 * images.tokens()];
        let wanted = match spec.output {
            FeatureOutput::View => Wanted::View,
            FeatureOutput::LastBlocks(n) => Wanted::LastBlocks(n),
        };
        let forward = network::build_forward(&spec.backbone, images, DType::U8, wanted)?;
        let store = Store::new(&forward.parameters, TEACHER, 0);
        let arena = forward.program.arena();
        Ok(Encoder { spec, pool, forward, arena, store, staging })
    }

    /// Channels of a feature.
    pub fn width(&self) -> usize {
        self.forward.widths.iter().sum()
    }

    /// Bytes of weights and activations.
    pub fn memory(&self) -> usize {
        self.store.bytes() + self.forward.program.arena_bytes()
    }

    /// Replaces the weights. Tensors of heads are not the backbone's and are passed over; everything else must fit.
    pub fn load(&mut self, weights: &[Tensor]) -> Result<LoadReport> {
        let backbone: Vec<Tensor> =
            weights.iter().filter(|t| !t.name.starts_with("head.") && !t.name.starts_with("head_dense.")).cloned().collect();
        self.store.load(&backbone, false)
    }

    /// Weights as a run with this seed starts with.
    pub fn initialise(&mut self, seed: u64) {
        self.store = Store::new(&self.forward.parameters, TEACHER, seed);
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
            let mut bindings = Bindings::new();
            self.store.bind(&mut bindings);
            bindings.bind("pixels", Slice::U8(&self.staging));
            let (program, arena, pool) = (&self.forward.program, &mut self.arena, &self.pool);
            pool.install(|| program.run(arena, &bindings, pool, Variant::Fast, None))?;
            let mut column = 0;
            for (value, w) in self.forward.outputs.iter().zip(&self.forward.widths) {
                let block = program.output(arena, *value).f32();
                for (row, out) in out.chunks_mut(width).enumerate() {
                    out[column..column + w].copy_from_slice(&block[row * w..][..*w]);
                }
                column += w;
            }
        }
        Ok(features)
    }
}
