//! Dispatches, collected once and replayed every step.

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use crate::kernel::Pipeline;
use crate::memory::Home;
use crate::{Error, Gpu, Kernel, Result, View};

/// Workgroups of a dispatch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid(pub [u32; 3]);

/// Workgroups that one axis of a grid can have everywhere.
const AXIS: u64 = 65_535;

impl Grid {
    /// `count` workgroups in x and, where one axis is not enough, y: kernels fold them back as `wg.y·grid.x + wg.x` and
    /// leave when that is too large.
    pub fn fold(count: usize) -> Grid {
        let count = (count as u64).max(1);
        let rows = count.div_ceil(AXIS);
        Grid([count.div_ceil(rows) as u32, rows as u32, 1])
    }

    /// One thread for each of `count` elements, in workgroups of `threads`.
    pub fn elements(count: usize, threads: usize) -> Grid {
        Grid::fold(count.div_ceil(threads))
    }
}

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
    /// `Params` of all dispatches, each at the alignment the adapter asks for.
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
    /// Nothing recorded yet.
    pub fn new(gpu: &'g Gpu) -> Recorder<'g> {
        Recorder::with_pieces(gpu, gpu.limits().max_storage_buffer_binding_size)
    }

    /// The same, cutting long operands into pieces of so many bytes where the adapter would allow more: for tests.
    pub fn with_pieces(gpu: &'g Gpu, piece: u64) -> Recorder<'g> {
        let limit = gpu.limits().max_storage_buffer_binding_size;
        Recorder { gpu, pending: Vec::new(), params: Vec::new(), taken: 0, scratch: 0, operators: Vec::new(), piece, limit }
    }

    /// The same as on an adapter whose bindings have so many bytes at most: for tests.
    pub fn with_bindings(gpu: &'g Gpu, limit: u64) -> Recorder<'g> {
        Recorder { limit, ..Recorder::with_pieces(gpu, limit) }
    }

    /// Bytes that a binding may have.
    pub fn longest_binding(&self) -> u64 {
        self.limit
    }

    /// The GPU that will run it.
    pub fn gpu(&self) -> &'g Gpu {
        self.gpu
    }

    /// What is recorded from now on belongs to this operator in this part of the step. Scratch memory of the one before is free again.
    pub fn begin(&mut self, operator: &'static str, phase: &'static str) {
        self.operators.push((operator, phase));
        self.taken = 0;
    }

    /// Memory that holds what an operator's dispatches leave for each other; contents unspecified at first.
    pub fn scratch(&mut self, bytes: u64) -> View {
        let offset = self.taken;
        self.taken = (offset + bytes.max(4)).next_multiple_of(256);
        self.scratch = self.scratch.max(self.taken);
        View { home: Home::Scratch, offset, bytes: bytes.max(4).next_multiple_of(4) }
    }

    /// Scratch memory that `record` takes is free again after it: for dispatches an operator repeats.
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

    /// Pieces of `images` images in which no operand is larger than a binding may be; an image has `image_bytes` in the largest operand. Where a
    /// piece begins, [`Recorder::aligned`] makes a binding begin.
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

#[derive(Debug)]
struct Dispatch {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    grid: Grid,
    operator: usize,
}

/// How long the dispatches of one operator took, with the time of a submission.
#[derive(Clone, Copy, Debug)]
pub struct OperatorTime {
    /// Its number, from 0, in the order of [`Recorder::begin`].
    pub operator: usize,
    /// Its name.
    pub name: &'static str,
    /// Part of the step.
    pub phase: &'static str,
    /// Wall time.
    pub seconds: f64,
}

/// Dispatches that are ready to run.
#[derive(Debug)]
pub struct Recording {
    dispatches: Vec<Dispatch>,
    operators: Vec<(&'static str, &'static str)>,
}

impl Recording {
    /// Submits all dispatches at once; does not wait for them.
    ///
    /// # Errors
    /// When the GPU was lost before.
    pub fn run(&self, gpu: &Gpu) -> Result<()> {
        gpu.check()?;
        let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("step") });
        self.encode(&mut encoder, 0..self.dispatches.len());
        gpu.queue().submit([encoder.finish()]);
        gpu.check()
    }

    /// Runs operator by operator and waits for each. Operators without dispatches are left out.
    ///
    /// # Errors
    /// When the GPU was lost.
    pub fn profile(&self, gpu: &Gpu) -> Result<Vec<OperatorTime>> {
        gpu.wait()?;
        let mut times = Vec::new();
        let mut from = 0;
        while from < self.dispatches.len() {
            let operator = self.dispatches[from].operator;
            let to = from + self.dispatches[from..].iter().take_while(|d| d.operator == operator).count();
            let mut encoder = gpu.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("operator") });
            self.encode(&mut encoder, from..to);
            let commands = encoder.finish();
            let started = std::time::Instant::now();
            gpu.queue().submit([commands]);
            gpu.wait()?;
            let (name, phase) = self.operators[operator];
            times.push(OperatorTime { operator, name, phase, seconds: started.elapsed().as_secs_f64() });
            from = to;
        }
        Ok(times)
    }

    fn encode(&self, encoder: &mut wgpu::CommandEncoder, range: Range<usize>) {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: None, timestamp_writes: None });
        for d in &self.dispatches[range] {
            pass.set_pipeline(&d.pipeline.pipeline);
            pass.set_bind_group(0, &d.group, &[]);
            let [x, y, z] = d.grid.0;
            pass.dispatch_workgroups(x, y, z);
        }
    }
}

impl Gpu {
    fn allocate_uniforms(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
        let size = (bytes.len().max(16) as u64).next_multiple_of(16);
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("parameters of the kernels"),
            size,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut padded = bytes.to_vec();
        padded.resize(size as usize, 0);
        self.queue().write_buffer(&buffer, 0, &padded);
        self.check()?;
        Ok(buffer)
    }
}
