//! Adapters and the device that was opened on one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::kernel::{Pipeline, compile};
use crate::{Error, Kernel, Result};

/// What kind of processor an adapter is; the better ones first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Has memory of its own.
    Discrete,
    /// Shares the CPU's memory.
    Integrated,
    /// A share of a GPU in a virtual machine.
    Virtual,
    /// Unknown.
    Other,
    /// A driver that computes on the CPU: for tests.
    Software,
}

impl Kind {
    /// As shown to users.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Discrete => "discrete",
            Kind::Integrated => "integrated",
            Kind::Virtual => "virtual",
            Kind::Other => "other",
            Kind::Software => "software",
        }
    }
}

/// What is known of an adapter without opening it.
#[derive(Clone, Debug)]
pub struct Adapter {
    /// The vendor's name for it.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// `Vulkan`, `Metal` or `Dx12`.
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
    /// Whether kernels can multiply on matrix units (tensor cores): 16 x 16 in half precision, summed in single, by subgroups of 32 threads.
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

/// What the cooperative product asks for.
const COOPERATIVE: wgpu::Features =
    wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX.union(wgpu::Features::SHADER_F16).union(wgpu::Features::SUBGROUP);

/// Whether these are the matrices that `matmul_cooperative.wgsl` multiplies.
fn fits(matrices: &wgpu::CooperativeMatrixProperties) -> bool {
    let size = [matrices.m_size, matrices.n_size, matrices.k_size];
    let types = [matrices.ab_type, matrices.cr_type];
    size == [16; 3] && types == [wgpu::CooperativeScalarType::F16, wgpu::CooperativeScalarType::F32]
}

fn describe(adapter: &wgpu::Adapter) -> Adapter {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let kind = match info.device_type {
        wgpu::DeviceType::DiscreteGpu => Kind::Discrete,
        wgpu::DeviceType::IntegratedGpu => Kind::Integrated,
        wgpu::DeviceType::VirtualGpu => Kind::Virtual,
        wgpu::DeviceType::Cpu => Kind::Software,
        wgpu::DeviceType::Other => Kind::Other,
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

fn sorted() -> Vec<(Adapter, wgpu::Adapter)> {
    let found = pollster::block_on(instance().enumerate_adapters(wgpu::Backends::all()));
    let mut found: Vec<_> = found.into_iter().map(|adapter| (describe(&adapter), adapter)).collect();
    found.sort_by_key(|(about, _)| about.kind);
    found
}

/// All adapters of the machine, best first.
pub fn adapters() -> Vec<Adapter> {
    sorted().into_iter().map(|(about, _)| about).collect()
}

/// An opened GPU. Clones are the same one, with the same compiled kernels.
#[derive(Clone, Debug)]
pub struct Gpu(Arc<Opened>);

#[derive(Debug)]
struct Opened {
    device: wgpu::Device,
    queue: wgpu::Queue,
    adapter: Adapter,
    limits: wgpu::Limits,
    pipelines: Mutex<HashMap<Kernel, Arc<Pipeline>>>,
    /// The first thing that went wrong outside of a call's own check.
    failure: Arc<Mutex<Option<Error>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Gpu {
    /// Opens the best adapter, one in software where there is no other.
    ///
    /// # Errors
    /// When there is none, or its driver gives no device.
    pub fn open() -> Result<Gpu> {
        let (about, adapter) = sorted().into_iter().next().ok_or(Error::NoAdapter)?;
        let limits = adapter.limits();
        let mut wanted = wgpu::Features::SHADER_F16 | wgpu::Features::TIMESTAMP_QUERY;
        let mut experimental_features = wgpu::ExperimentalFeatures::disabled();
        if about.cooperative_matrix {
            wanted |= COOPERATIVE;
            // SAFETY: what is experimental is used by one kernel, in the form that the adapter lists; naga validates it, and its indices
            // stay inside its tiles.
            experimental_features = unsafe { wgpu::ExperimentalFeatures::enabled() };
        }
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("esvit"),
            required_features: adapter.features() & wanted,
            required_limits: limits.clone(),
            experimental_features,
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            trace: wgpu::Trace::Off,
        };
        let refused = |reason: wgpu::RequestDeviceError| Error::Refused { adapter: about.name.clone(), reason: reason.to_string() };
        let (device, queue) = pollster::block_on(adapter.request_device(&descriptor)).map_err(refused)?;
        let failure = Arc::new(Mutex::new(None));
        let (lost, uncaptured) = (Arc::clone(&failure), Arc::clone(&failure));
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                *lock(&lost) = Some(Error::Lost(message));
            }
        });
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let known = match error {
                wgpu::Error::OutOfMemory { .. } => Error::Lost("it ran out of memory".into()),
                other => Error::Call(other.to_string()),
            };
            lock(&uncaptured).get_or_insert(known);
        }));
        Ok(Gpu(Arc::new(Opened { device, queue, adapter: about, limits, pipelines: Mutex::default(), failure })))
    }

    /// What was opened.
    pub fn adapter(&self) -> &Adapter {
        &self.0.adapter
    }

    pub(crate) fn device(&self) -> &wgpu::Device {
        &self.0.device
    }

    pub(crate) fn queue(&self) -> &wgpu::Queue {
        &self.0.queue
    }

    pub(crate) fn limits(&self) -> &wgpu::Limits {
        &self.0.limits
    }

    /// The compiled kernel, from the first call on.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let mut known = lock(&self.0.pipelines);
        if let Some(pipeline) = known.get(kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(compile(self, kernel)?);
        known.insert(*kernel, Arc::clone(&pipeline));
        Ok(pipeline)
    }

    /// The first failure since the device was opened, if there was one: everything after it is worth nothing.
    pub(crate) fn check(&self) -> Result<()> {
        lock(&self.0.failure).clone().map_or(Ok(()), Err)
    }

    /// Waits until everything that was submitted is done.
    pub fn wait(&self) -> Result<()> {
        let waited = self.0.device.poll(wgpu::PollType::Wait { submission_index: None, timeout: None });
        self.check()?;
        waited.map(|_| ()).map_err(|error| Error::Lost(error.to_string()))
    }
}
