//! Pipelines: kernels that a device has compiled.

use crate::{Error, Kernel, Result};

/// A compiled kernel.
#[derive(Debug)]
pub(crate) struct Pipeline {
    pub pipeline: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
}

/// Compiles a kernel.
///
/// # Errors
/// When the driver does not accept it: a defect of this program. The message names the kernel.
pub(crate) fn compile(device: &wgpu::Device, kernel: &Kernel) -> Result<Pipeline> {
    let scope = device.push_error_scope(wgpu::ErrorFilter::Validation);
    let source = wgpu::ShaderModuleDescriptor { label: Some(kernel.name), source: wgpu::ShaderSource::Wgsl(kernel.source().into()) };
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
