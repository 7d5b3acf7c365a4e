//! Errors.

/// Failure between the engine and a GPU.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The machine has no GPU, or no driver for it.
    #[error("this machine has no GPU that Vulkan, Metal or DirectX 12 can use")]
    NoAdapter,
    /// An adapter was found but gives no device.
    #[error("the GPU {adapter} cannot be used: {reason}")]
    Refused {
        /// Name of the adapter.
        adapter: String,
        /// Reason that the driver gives.
        reason: String,
    },
    /// More memory in one piece than the adapter has or allows.
    #[error("{what} needs {bytes} bytes of GPU memory in one piece, and {limit}")]
    Memory {
        /// Purpose of the memory.
        what: String,
        /// Bytes needed.
        bytes: u64,
        /// Reason why that is too much.
        limit: String,
    },
    /// The driver gave up: reset, unplugged, out of memory, or a program that ran too long.
    #[error("the GPU was lost: {0}")]
    Lost(String),
    /// A kernel or a call the driver does not accept: a defect of this program.
    #[error("the GPU refused a call: {0}")]
    Call(String),
}
