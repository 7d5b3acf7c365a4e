//! Adapters: the GPUs of a machine, before one is opened.

/// Kind of processor an adapter is; the better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// Memory separate from the CPU's.
    Discrete,
    /// Memory shared with the CPU.
    Integrated,
    /// A share of a GPU in a virtual machine.
    Virtual,
    /// Unknown.
    Other,
    /// A driver that computes on the CPU: for tests.
    Software,
}

impl AdapterKind {
    /// Name as shown to users.
    pub fn name(self) -> &'static str {
        match self {
            AdapterKind::Discrete => "discrete",
            AdapterKind::Integrated => "integrated",
            AdapterKind::Virtual => "virtual",
            AdapterKind::Other => "other",
            AdapterKind::Software => "software",
        }
    }
}

/// Properties of an adapter, known without opening it.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// Name that the vendor gives it.
    pub name: String,
    /// Kind of processor.
    pub kind: AdapterKind,
    /// Interface of its driver: `Vulkan`, `Metal` or `Dx12`.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest buffer, in bytes.
    pub max_buffer: u64,
    /// Largest part of a buffer that a kernel can see, in bytes.
    pub max_binding: u64,
    /// Shared memory of a workgroup, in bytes.
    pub workgroup_memory: u32,
    /// Whether kernels can compute in half precision.
    pub half_precision: bool,
    /// Whether kernels can multiply on matrix units (tensor cores): 16 x 16 in half precision, summed in single, by subgroups of 32
    /// threads.
    pub cooperative_matrix: bool,
    /// Whether dispatches can be timed.
    pub timestamps: bool,
}

fn instance() -> wgpu::Instance {
    wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        flags: wgpu::InstanceFlags::empty(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    })
}

/// Features of the product on matrix units.
pub(crate) const COOPERATIVE: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// Whether these are the matrices that `matmul/cooperative.wgsl` multiplies.
fn fits(matrices: &wgpu::CooperativeMatrixProperties) -> bool {
    let size = [matrices.m_size, matrices.n_size, matrices.k_size];
    let types = [matrices.ab_type, matrices.cr_type];
    size == [16; 3] && types == [wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32]
}

fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
        wgpu::DeviceType::Other => AdapterKind::Other,
    };
    Adapter {
        name: info.name,
        kind,
        backend: format!("{:?}", info.backend),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_string(),
        max_buffer: limits.max_buffer_size,
        max_binding: limits.max_storage_buffer_binding_size,
        workgroup_memory: limits.max_compute_workgroup_storage_size,
        half_precision: features.contains(wgpu::Features::SHADER_F16),
        cooperative_matrix: features.contains(COOPERATIVE)
            && [info.subgroup_min_size, info.subgroup_max_size] == [32, 32]
            && limits.max_compute_workgroup_storage_size >= 28 << 10
            && adapter.cooperative_matrix_properties().iter().any(fits),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
    }
}

/// All adapters of the machine with their handles, best first.
pub(crate) fn sorted() -> Vec<(Adapter, wgpu::Adapter)> {
    let found = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
    let mut found: Vec<_> = found.into_iter().map(|adapter| (describe(&adapter), adapter)).collect();
    found.sort_by_key(|(about, _)| about.kind);
    found
}

/// Lists all adapters of the machine, best first.
pub fn adapters() -> Vec<Adapter> {
    sorted().into_iter().map(|(about, _)| about).collect()
}
