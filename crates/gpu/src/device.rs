//! The device that was opened on an adapter, with its compiled kernels.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::adapter::{COOPERATIVE, sorted};
use crate::pipeline::{Pipeline, compile};
use crate::{Adapter, Error, Kernel, Result};

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
    /// The first failure outside of a call's check.
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

    /// The adapter that was opened.
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

    /// Pipeline of a kernel, which the first call compiles.
    pub(crate) fn pipeline(&self, kernel: &Kernel) -> Result<Arc<Pipeline>> {
        let mut known = lock(&self.0.pipelines);
        if let Some(pipeline) = known.get(kernel) {
            return Ok(Arc::clone(pipeline));
        }
        let pipeline = Arc::new(compile(self.device(), kernel)?);
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
