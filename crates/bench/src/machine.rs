//! Where measurements run.

use esvit_engine::Result;
use esvit_engine::device::{Gpu, Kind};
use esvit_engine::spec::Device;
use esvit_simd::Pool;

/// Compute threads and, where it was asked for, a GPU.
#[derive(Debug)]
pub struct Machine {
    pool: Pool,
    gpu: Option<Gpu>,
}

impl Machine {
    /// So many compute threads; 0 for one a core.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn cpu(threads: usize) -> Result<Machine> {
        Ok(Machine { pool: Pool::new(threads)?, gpu: None })
    }

    /// A GPU that was opened.
    ///
    /// # Errors
    /// When the threads cannot be started.
    pub fn with_gpu(gpu: Gpu) -> Result<Machine> {
        Ok(Machine { pool: Pool::new(0)?, gpu: Some(gpu) })
    }

    /// Its compute threads.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Its GPU; none when programs run on the CPU.
    pub fn gpu(&self) -> Option<&Gpu> {
        self.gpu.as_ref()
    }

    /// `cpu`, or the GPU's name.
    pub fn device(&self) -> String {
        self.gpu.as_ref().map_or("cpu".into(), |gpu| gpu.adapter().name.clone())
    }

    /// What a trainer on this machine plans for.
    pub fn target(&self) -> Device {
        if self.gpu.is_some() { Device::Gpu } else { Device::Cpu }
    }

    /// Whether it is a GPU that a driver computes on the CPU: right, and far too slow to run anything often.
    pub fn is_software_gpu(&self) -> bool {
        self.gpu.as_ref().is_some_and(|gpu| gpu.adapter().kind == Kind::Software)
    }
}
