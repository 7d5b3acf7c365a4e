//! The recorder: dispatches are collected once, to be replayed every step.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use crate::memory::Home;
use crate::pipeline::Pipeline;
use crate::recording::Dispatch;
use crate::{Error, Gpu, Grid, Kernel, Recording, Result, View};

/// One dispatch whose scratch memory does not exist yet.
#[derive(Debug)]
struct Pending {
    kernel: &'static Kernel,
    pipeline: Arc<Pipeline>,
    bindings: Vec<View>,
    params: usize,
    grid: Grid,
    operator: usize,
}

/// Collects dispatches. They run in the order they were recorded, each after the one before it.
#[derive(Debug)]
pub struct Recorder<'g> {
    gpu: &'g Gpu,
    pending: Vec<Pending>,
    /// `Params` of all dispatches, each at the alignment the adapter demands.
    params: Vec<u8>,
    /// Scratch memory the operator at hand has taken, and the most that one took.
    taken: u64,
    scratch: u64,
    operators: Vec<(&'static str, &'static str)>,
    /// Largest piece of a long operand, in bytes.
    piece: u64,
    /// Largest binding, in bytes.
    limit: u64,
}

impl<'g> Recorder<'g> {
    /// An empty recorder.
    pub fn new(gpu: &'g Gpu) -> Recorder<'g> {
        Recorder::with_pieces(gpu, gpu.limits().max_storage_buffer_binding_size)
    }

    /// An empty recorder that cuts long operands into pieces of so many bytes where the adapter would allow more: for tests.
    pub fn with_pieces(gpu: &'g Gpu, piece: u64) -> Recorder<'g> {
        let limit = gpu.limits().max_storage_buffer_binding_size;
        Recorder { gpu, pending: Vec::new(), params: Vec::new(), taken: 0, scratch: 0, operators: Vec::new(), piece, limit }
    }

    /// An empty recorder for an adapter whose bindings have so many bytes at most: for tests.
    pub fn with_bindings(gpu: &'g Gpu, limit: u64) -> Recorder<'g> {
        Recorder { limit, ..Recorder::with_pieces(gpu, limit) }
    }

    /// Bytes that a binding may have at most.
    pub fn longest_binding(&self) -> u64 {
        self.limit
    }

    /// The GPU that will run it.
    pub fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// Begins an operator in a part of the step: what is recorded from now on belongs to it. Scratch memory of the one before is free
    /// again.
    pub fn begin(&mut self, operator: &'static str, phase: &'static str) {
        self.operators.push((operator, phase));
        self.taken = 0;
    }

    /// Scratch memory for values that an operator's dispatches leave for each other; contents unspecified at first.
    pub fn scratch(&mut self, bytes: u64) -> View {
        let offset = self.taken;
        self.taken = (offset + bytes.max(4)).next_multiple_of(256);
        self.scratch = self.scratch.max(self.taken);
        View { home: Home::Scratch, offset, bytes: bytes.max(4).next_multiple_of(4) }
    }

    /// Calls `record`, and frees the scratch memory it takes: for dispatches an operator repeats.
    pub fn scoped<T>(&mut self, record: impl FnOnce(&mut Self) -> T) -> T {
        let taken = self.taken;
        let result = record(self);
        self.taken = taken;
        result
    }

    /// Pieces of `rows` rows in which no operand is larger than a binding may be; `row_bytes` is the longest row among the operands. All
    /// but the last have a multiple of 64 rows, so that every piece starts where a binding can start.
    pub fn row_pieces(&self, rows: usize, row_bytes: usize) -> Vec<Range<usize>> {
        let most = (self.piece as usize / row_bytes.max(1)).max(64) / 64 * 64;
        (0..rows.div_ceil(most).max(1)).map(|i| i * most..((i + 1) * most).min(rows)).collect()
    }

    /// Pieces of `images` images in which no operand is larger than a binding may be; an image has `image_bytes` in the largest operand.
    /// Where a piece begins, [`Recorder::aligned`] makes a binding begin.
    pub fn image_pieces(&self, images: usize, image_bytes: usize) -> Vec<Range<usize>> {
        // A binding may begin up to one alignment early.
        let most = ((self.piece as usize).saturating_sub(256) / image_bytes.max(1)).max(1);
        (0..images.div_ceil(most)).map(|i| i * most..((i + 1) * most).min(images)).collect()
    }

    /// A part of a view, in 32-bit words, that a kernel can bind: it begins up to an alignment early, and the second result says how many
    /// words. Kernels add that to their index.
    pub fn aligned(&self, view: &View, first: usize, words: usize) -> (View, u32) {
        let alignment = u64::from(self.gpu.limits().min_storage_buffer_offset_alignment);
        let begin = view.offset + 4 * first as u64;
        let early = begin % alignment;
        let part = View { home: view.home.clone(), offset: begin - early, bytes: 4 * words as u64 + early };
        (part, (early / 4) as u32)
    }

    /// Records a dispatch. `bindings` are the storage buffers in the kernel's order; a result must not overlap another binding,
    /// unless the kernel says that it may.
    ///
    /// # Errors
    /// When the kernel does not compile, or a binding is larger than the adapter allows.
    pub fn dispatch<P: Pod>(&mut self, kernel: &'static Kernel, bindings: &[&View], params: &P, grid: Grid) -> Result<()> {
        let bytes = bytemuck::bytes_of(params);
        assert_eq!(bytes.len(), kernel.params, "{}: these are another kernel's Params", kernel.name);
        assert_eq!(bindings.len(), kernel.storages as usize, "{}: a view for each storage buffer", kernel.name);
        let limit = self.limit;
        if let Some(view) = bindings.iter().find(|view| view.bytes > limit) {
            let limit = format!("{} shows a kernel {limit} at most", self.gpu.adapter().name);
            return Err(Error::Memory { what: kernel.name.to_string(), bytes: view.bytes, limit });
        }
        let pipeline = self.gpu.pipeline(kernel)?;
        let at = self.params.len();
        self.params.extend_from_slice(bytes);
        self.params.resize(self.params.len().next_multiple_of(self.gpu.limits().min_uniform_buffer_offset_alignment as usize), 0);
        let operator = self.operators.len().saturating_sub(1);
        self.pending.push(Pending {
            kernel,
            pipeline,
            bindings: bindings.iter().map(|&v| v.clone()).collect(),
            params: at,
            grid,
            operator,
        });
        Ok(())
    }

    /// Makes the scratch memory and binds everything.
    ///
    /// # Errors
    /// When there is not enough memory.
    pub fn finish(self) -> Result<Recording> {
        let device = self.gpu.device();
        let scratch = self.gpu.allocate("scratch memory", self.scratch)?;
        let params = self.gpu.allocate_uniforms(&self.params)?;
        let buffer = |view: &View| match (&view.home, &scratch.home) {
            (Home::Buffer(buffer), _) | (Home::Scratch, Home::Buffer(buffer)) => buffer.clone(),
            (Home::Scratch, Home::Scratch) => unreachable!("memory that was allocated has a buffer"),
        };
        let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
        let mut dispatches = Vec::with_capacity(self.pending.len());
        for p in &self.pending {
            let buffers: Vec<wgpu::Buffer> = p.bindings.iter().map(buffer).collect();
            let part = |buffer, offset, bytes| {
                wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer, offset, size: std::num::NonZero::new(bytes) })
            };
            let mut entries: Vec<_> = (p.bindings.iter().zip(&buffers).enumerate())
                .map(|(i, (view, b))| wgpu::BindGroupEntry { binding: i as u32, resource: part(b, view.offset, view.bytes) })
                .collect();
            let uniform = part(&params, p.params as u64, p.kernel.params as u64);
            entries.push(wgpu::BindGroupEntry { binding: p.kernel.storages, resource: uniform });
            let descriptor = wgpu::BindGroupDescriptor { label: Some(p.kernel.name), layout: &p.pipeline.layout, entries: &entries };
            let group = device.create_bind_group(&descriptor);
            dispatches.push(Dispatch { pipeline: Arc::clone(&p.pipeline), group, grid: p.grid, operator: p.operator });
        }
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::Call(error.to_string()));
        }
        Ok(Recording { dispatches, operators: self.operators })
    }
}
