//! Devices: where a trainer or an encoder runs.

use esvit_gpu::Gpu;

use crate::spec::PrecisionSpec;

/// Kind of a device: enough to plan a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[cfg_attr(feature = "typescript", derive(ts_rs::TS), ts(rename = "Device"))]
#[serde(rename_all = "camelCase")]
pub enum DeviceKind {
    /// The CPU.
    Cpu,
    /// A GPU.
    Gpu,
}

impl DeviceKind {
    /// Whether gradients are so narrow here that the loss is scaled.
    pub(crate) fn scales_loss(self, precision: PrecisionSpec) -> bool {
        self == DeviceKind::Gpu && precision == PrecisionSpec::Mixed
    }
}

/// A device that can run programs: the CPU, or a GPU that was opened.
#[derive(Clone, Debug)]
pub enum Device {
    /// The CPU.
    Cpu,
    /// A GPU that was opened.
    Gpu(Gpu),
}

impl Device {
    /// Kind of the device.
    pub fn kind(&self) -> DeviceKind {
        match self {
            Device::Cpu => DeviceKind::Cpu,
            Device::Gpu(_) => DeviceKind::Gpu,
        }
    }
}
