/// Reasons why the engine refuses something.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The specification cannot be built.
    #[error("{0}")]
    Spec(String),
    /// The program cannot be built or run.
    #[error(transparent)]
    Graph(#[from] esvit_graph::Error),
    /// A state or a set of weights does not fit.
    #[error("{0}")]
    State(String),
    /// Pixels, labels or features of the wrong size.
    #[error("{what} must have {want} elements, got {got}")]
    Input {
        /// Which argument.
        what: &'static str,
        /// Number it must have.
        want: usize,
        /// Number it has.
        got: usize,
    },
    /// A batch's place was written or read at the wrong time.
    #[error("{0}")]
    Batch(String),
    /// The compute threads could not be started.
    #[error(transparent)]
    Threads(#[from] esvit_simd::pool::PoolError),
    /// The step is too large for the GPU.
    #[error("{0}")]
    Memory(String),
    /// The GPU, or its memory.
    #[error(transparent)]
    Gpu(#[from] esvit_gpu::Error),
}
