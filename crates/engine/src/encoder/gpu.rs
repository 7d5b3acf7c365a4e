//! The forward pass on a GPU.

use std::borrow::Cow;
use std::time::Duration;

use esvit_gpu::{Gpu, Recorder, Recording, View};
use esvit_graph::{Bindings, GpuArena, NodeTime, Value};

use super::executor::ForwardExecutor;
use crate::forward::CompiledForward;
use crate::{Result, Store};

/// The recorded forward pass, and its weights in GPU memory.
#[derive(Debug)]
pub(super) struct GpuForward {
    gpu: Gpu,
    recording: Recording,
    arena: GpuArena,
    /// Views of all entries of the store.
    weights: Vec<View>,
    pixels: View,
}

impl GpuForward {
    pub fn new(gpu: Gpu, forward: &CompiledForward, store: &Store, pixel_bytes: usize) -> Result<GpuForward> {
        let allocate = |i: usize| gpu.allocate("weights", 4 * store.floats(i) as u64);
        let weights = (0..store.entries().len()).map(allocate).collect::<std::result::Result<Vec<_>, _>>()?;
        let pixels = gpu.allocate("pixels", pixel_bytes as u64)?;
        let mut leaves = Bindings::new();
        for (leaf, view) in forward.weights.iter().zip(&weights).chain([(&forward.pixels, &pixels)]) {
            if let Some(leaf) = *leaf {
                leaves.bind(leaf, view.clone());
            }
        }
        let arena = forward.program.gpu_arena(&gpu)?;
        let mut rec = Recorder::new(&gpu);
        forward.program.record(&mut rec, &arena, &leaves)?;
        let recording = rec.finish()?;
        Ok(GpuForward { gpu, recording, arena, weights, pixels })
    }
}

impl ForwardExecutor for GpuForward {
    fn take_weights(&mut self, _: &CompiledForward, store: &mut Store) {
        for (i, view) in self.weights.iter().enumerate() {
            self.gpu.upload(view, bytemuck::cast_slice(store.values(i)));
            *store.values_mut(i) = Vec::new();
        }
    }

    fn release_weights(&mut self) {}

    fn weight_bytes(&self) -> usize {
        self.weights.iter().map(|view| view.bytes() as usize).sum()
    }

    fn run(
        &mut self,
        forward: &CompiledForward,
        _: &Store,
        pixels: &[u8],
        times: Option<&mut Vec<NodeTime>>,
    ) -> Result<Vec<Cow<'_, [f32]>>> {
        self.gpu.upload(&self.pixels, pixels);
        match times {
            None => self.recording.run(&self.gpu)?,
            Some(times) => times.extend(self.recording.profile(&self.gpu)?.into_iter().map(|t| {
                // Kernels of one operator share its arithmetic, which they do not know.
                NodeTime { op: t.name, phase: t.phase, time: Duration::from_secs_f64(t.seconds), flops: 0 }
            })),
        }
        let read = |value: &Value| Ok(Cow::Owned(self.gpu.read_f32(&forward.program.gpu_output(&self.arena, *value))?));
        forward.outputs.iter().map(read).collect()
    }
}
