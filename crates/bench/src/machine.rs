//! The machine on which measurements run.

use esvit_engine::device::{AdapterKind, Gpu};
use esvit_engine::{Device, DeviceKind, Result};
use esvit_simd::Pool;

/// Compute threads and, where it was asked for, a GPU.
#[derive(Debug)]
pub struct Machine {
    pool: Pool,
    gpu: Option<Gpu>,
}

impl Machine {
    /// A machine with `threads` compute threads; 0 for one a core.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn cpu(threads: usize) -> Result<Machine> {
        Ok(Machine { pool: Pool::new(threads)?, gpu: None })
    }

    /// A machine with a GPU that was opened.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn with_gpu(gpu: Gpu) -> Result<Machine> {
        Ok(Machine { pool: Pool::new(0)?, gpu: Some(gpu) })
    }

    /// Compute threads of the machine.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// GPU that programs run on; none when they run on the CPU.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// Device on which trainers and encoders run.
    pub fn device(&self) -> Device {
        self.gpu.clone().map_or(Device::Cpu, Device::Gpu)
    }

    /// `cpu`, or the GPU's name.
    pub fn device_name(&self) -> String {
        self.gpu.as_ref().map_or("cpu".into(), |gpu| gpu.adapter().name.clone())
    }

    /// Kind of the device: enough to plan a step.
    pub fn target(&self) -> DeviceKind {
        if self.gpu.is_some() { DeviceKind::Gpu } else { DeviceKind::Cpu }
    }

    /// Whether it is a GPU that a driver computes on the CPU: right, and far too slow to run anything often.
    pub fn is_software_gpu(&self) -> bool {
        self.gpu.as_ref().is_some_and(|gpu| gpu.adapter().kind == AdapterKind::Software)
    }
}
