//! Memory of the GPU: views of buffers, and the ways in and out.

use crate::{Error, Gpu, Result};

/// Place of a view's bytes.
#[derive(Clone, Debug)]
pub(crate) enum Home {
    Buffer(wgpu::Buffer),
    /// The recording's scratch buffer, which is made when the recording is finished.
    Scratch,
}

/// A part of a buffer. Cheap to clone; the memory lives as long as any view of it.
#[derive(Clone, Debug)]
pub struct View {
    pub(crate) home: Home,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl View {
    /// Size in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// A part of this view, in bytes from its start.
    ///
    /// # Panics
    /// When the part does not lie inside: a caller's defect.
    pub fn part(&self, offset: u64, bytes: u64) -> View {
        assert!(offset + bytes <= self.bytes, "a part of {bytes} bytes at {offset} leaves a view of {} bytes", self.bytes);
        View { home: self.home.clone(), offset: self.offset + offset, bytes }
    }

    /// Rows `from..from + count` of a matrix of 32-bit values.
    pub fn rows(&self, from: usize, count: usize, cols: usize) -> View {
        self.part((from * cols * 4) as u64, (count * cols * 4) as u64)
    }
}

impl Gpu {
    /// Memory for `bytes` bytes, zeroed.
    ///
    /// # Errors
    /// When the adapter has not that much, or not in one piece.
    pub fn allocate(&self, what: &str, bytes: u64) -> Result<View> {
        let size = bytes.max(4).next_multiple_of(4);
        let too_much = |limit: String| Error::Memory { what: what.to_string(), bytes, limit };
        let largest = self.limits().max_buffer_size;
        if size > largest {
            return Err(too_much(format!("{} gives {largest} at most", self.adapter().name)));
        }
        let scope = self.device().push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some(what),
            size,
            usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        if pollster::block_on(scope.pop()).is_some() {
            return Err(too_much(format!("{} has not that much left", self.adapter().name)));
        }
        self.check()?;
        Ok(View { home: Home::Buffer(buffer), offset: 0, bytes: size })
    }

    /// Copies bytes to the GPU; they arrive before anything that is submitted later. The last word is filled up with zeros.
    ///
    /// # Panics
    /// When the view is smaller, or a recording's scratch memory.
    pub fn upload(&self, to: &View, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= to.bytes, "{} bytes do not fit into a view of {}", bytes.len(), to.bytes);
        let Home::Buffer(buffer) = &to.home else { panic!("scratch memory holds nothing between steps") };
        let whole = bytes.len() / 4 * 4;
        if whole > 0 {
            self.queue().write_buffer(buffer, to.offset, &bytes[..whole]);
        }
        if whole < bytes.len() {
            let mut last = [0u8; 4];
            last[..bytes.len() - whole].copy_from_slice(&bytes[whole..]);
            self.queue().write_buffer(buffer, to.offset + whole as u64, &last);
        }
    }

    /// Waits for everything submitted, and copies the views' bytes from the GPU, one after the other.
    ///
    /// # Errors
    /// When the GPU was lost.
    pub fn read(&self, views: &[View]) -> Result<Vec<Vec<u8>>> {
        let total: u64 = views.iter().map(|v| v.bytes.next_multiple_of(4)).sum();
        let staging = self.device().create_buffer(&wgpu::BufferDescriptor {
            label: Some("read-back"),
            size: total.max(4),
            usage: wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let mut encoder = self.device().create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some("read-back") });
        let mut at = 0;
        for view in views {
            let Home::Buffer(buffer) = &view.home else { panic!("scratch memory holds nothing between steps") };
            let size = view.bytes.next_multiple_of(4);
            encoder.copy_buffer_to_buffer(buffer, view.offset, &staging, at, size);
            at += size;
        }
        self.queue().submit([encoder.finish()]);
        staging.map_async(wgpu::MapMode::Read, .., |_| {});
        self.wait()?;
        let mapped = staging.get_mapped_range(..).map_err(|error| Error::Lost(error.to_string()))?;
        let mut at = 0;
        let parts = views.iter().map(|view| {
            let part = mapped[at..at + view.bytes as usize].to_vec();
            at += view.bytes.next_multiple_of(4) as usize;
            part
        });
        Ok(parts.collect())
    }

    /// Waits for everything submitted, and copies a view of floats from the GPU.
    pub fn read_f32(&self, view: &View) -> Result<Vec<f32>> {
        Ok(self.read(std::slice::from_ref(view))?.remove(0).chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
    /// A buffer with the `Params` of all dispatches of a recording.
    pub(crate) fn allocate_uniforms(&self, bytes: &[u8]) -> Result<wgpu::Buffer> {
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
