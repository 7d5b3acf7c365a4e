//! The contract of an operator.

use std::any::Any;
use std::fmt::Debug;

use esvit_gpu::Recorder;

use crate::{DType, Error, GpuIo, Graph, Io, Node, Precision, Prepacked, Result, Shape, Slice, Value};

/// An operator: its shape rule, its gradient rule, its two CPU versions, its GPU kernels.
pub trait Op: Any + Debug + Send + Sync {
    /// Name of the operator in every table and message.
    fn name(&self) -> &'static str;

    /// Shapes and types of the results, or why the operands do not fit.
    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>>;

    /// Adds the nodes of the vector-Jacobian product. `dys` holds the gradient of each result (`None` where nothing depends on it), `wants`
    /// says which operands need theirs. Every returned gradient must consume the incoming one: it is never 1.
    fn gradient(&self, _graph: &mut Graph, _node: &Node, _dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        Err(Error::NoGradient { op: self.name() })
    }

    /// Runs the plain version.
    fn reference(&self, io: &mut Io);

    /// Runs the fast version: the plain one where that is already as fast as memory.
    fn fast(&self, io: &mut Io) {
        self.reference(io);
    }

    /// Records the kernels that compute the same on a GPU.
    ///
    /// # Errors
    /// When the operator has none, or the adapter cannot bind its operands.
    fn gpu(&self, _io: &GpuIo, _rec: &mut Recorder) -> Result<()> {
        Err(Error::NoKernel { op: self.name() })
    }

    /// Whether the first result is recomputed (rematerialized) for the gradients that read it, so that it need not stay in memory for them:
    /// for operators that cost about as much as reading their result, and whose own gradient does not read it.
    fn recompute_in_backward(&self) -> bool {
        false
    }

    /// Whether the fast version, in mixed precision on a CPU that multiplies bf16, rounds this operand before it does anything else and can
    /// read it as words of two bf16 that are adjacent in a row.
    fn reads_bf16x2(&self, _operand: usize, _inputs: &[&Shape]) -> bool {
        false
    }

    /// Whether the fast version can write its first result as such words.
    fn writes_bf16x2(&self, _inputs: &[&Shape]) -> bool {
        false
    }

    /// Prepacks operands that never change, those that are given, in the order in which the fast version reads them. Not called in
    /// training.
    fn prepack(&self, _operands: &[Option<Slice>], _shapes: &[&Shape], _precision: Precision) -> Option<Prepacked> {
        None
    }

    /// Scratch bytes of the fast version with `threads` threads: the most it takes from the pool at once.
    fn scratch(&self, _inputs: &[&Shape], _threads: usize) -> usize {
        0
    }

    /// Multiplications and additions of the matrix products in one application, for shares of the peak.
    fn flops(&self, _inputs: &[&Shape]) -> u64 {
        0
    }
}
