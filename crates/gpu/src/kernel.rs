//! WGSL entry points and their pipelines.

use std::mem::size_of;

use crate::{Error, Gpu, Result};

/// What a kernel asks of an adapter besides what all of them have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Arithmetic in half precision.
    HalfPrecision,
    /// Matrix units that take half and give single precision, for subgroups of 32 threads.
    CooperativeMatrix,
}

/// One entry point of a WGSL file. Bindings of group 0: storage buffers first, in the order a dispatch gives them, then the
/// uniform `Params`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kernel {
    /// For messages and profiles.
    pub name: &'static str,
    /// The file's text.
    pub source: &'static str,
    /// The function's name.
    pub entry: &'static str,
    /// Number of storage buffers. At most 8: what every adapter has.
    pub storages: u32,
    /// Bytes of `Params`, a multiple of 16.
    pub params: usize,
    /// What it asks of the adapter: whoever records it has made sure of that.
    pub needs: Needs,
}

impl Kernel {
    /// A kernel whose `Params` mirror `P`, field for field.
    pub const fn new<P>(name: &'static str, source: &'static str, entry: &'static str, storages: u32) -> Kernel {
        assert!(storages <= 8, "adapters have 8 storage buffers for a kernel");
        assert!(size_of::<P>().is_multiple_of(16), "pad Params to 16 bytes");
        Kernel { name, source, entry, storages, params: size_of::<P>(), needs: Needs::Nothing }
    }

    /// The same for adapters that have more.
    #[must_use]
    pub const fn needing(self, needs: Needs) -> Kernel {
        Kernel { needs, ..self }
    }
}

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

pub(crate) fn compile(gpu: &Gpu, kernel: &Kernel) -> Result<Pipeline> {
    let device = gpu.device();
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let source = wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source: wgpu::ShaderSource::Wgsl(kernel.source.into()) };
    // Without a counter in every loop, which guards against those that never end.
    let checks = wgpu::ShaderRuntimeChecks { force_loop_bounding: false, ..wgpu::ShaderRuntimeChecks::checked() };
    // SAFETY: every loop of every kernel counts up, or halves a width, towards a bound that does not change while it runs, so all of
    // them end. All other checks stay.
    let module = unsafe { device.create_shader_module_trusted(source, checks) };
    let entry = |binding: u32, ty| wgpu::BindGroupLayoutEntry {
        binding,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    // Operands and results lie in one arena buffer, and a buffer cannot be bound for reading and for writing in one
    // dispatch: all are bound, and declared in the file, for both.
    let storage = |binding| entry(binding, wgpu::BufferBindingType::Storage { read_only: false });
    let mut entries: Vec<_> = (0..kernel.storages).map(storage).collect();
    entries.push(entry(kernel.storages, wgpu::BufferBindingType::Uniform));
    let layout = device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries });
    let pipeline_layout = device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(kernel.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let pipeline = device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some(kernel.entry),
        compilation_options: wgpu::PipelineCompilationOptions {
            constants: &[],
            // Kernels write shared memory before they read it.
            zero_initialize_workgroup_memory: false,
        },
        cache: None,
    });
    match pollster::block_on(scope.pop()) {
        None => Ok(Pipeline { pipeline, layout }),
        Some(error) => Err(Error::Call(format!("{}: {error}", kernel.name))),
    }
}
