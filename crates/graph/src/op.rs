//! The contract of an operator.

use std::any::Any;
use std::fmt::Debug;

use esvit_gpu::Recorder;

use crate::{DType, Error, GpuIo, Graph, Io, Node, Precision, Prepacked, Result, Shape, Slice, Value};

/// An operator: its shape rule, its gradient rule, its two CPU versions, its GPU kernels.
pub trait Op: Any + Debug + Send + Sync {
    /// Name, the same in every table and message.
    fn name(&self) -> &'static str;

    /// Shapes and types of the results, or why the operands do not fit.
    fn infer(&self, inputs: &[&Shape]) -> Result<Vec<(Shape, DType)>>;

    /// Adds the nodes of the vector-Jacobian product. `dys` holds the gradient of each result (`None`
    /// where nothing depends on it), `wants` says which operands need theirs. Every returned gradient
    /// must consume the incoming one: it is never 1.
    fn gradient(&self, _graph: &mut Graph, _node: &Node, _dys: &[Option<Value>], _wants: &[bool]) -> Result<Vec<Option<Value>>> {
        Err(Error::NoGradient { op: self.name() })
    }

    /// The plain version.
    fn reference(&self, io: &mut Io);

    /// The fast version. The plain one where that is already as fast as memory.
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

    /// Whether the gradients that read its first result compute it again, so that it need not wait for them: for operators that cost about as
    /// much as reading what they write, and whose own gradient does not read it.
    fn recompute_in_backward(&self) -> bool {
        false
    }

    /// Whether the fast version rounds this operand to bf16 before it does anything else, in mixed precision on a CPU that multiplies those, and
    /// can read it in pairs: words of two neighbors of a row, rounded already.
    fn reads_bf16x2(&self, _operand: usize, _inputs: &[&Shape]) -> bool {
        false
    }

    /// Whether it can write its first result so.
    fn writes_bf16x2(&self, _inputs: &[&Shape]) -> bool {
        false
    }

    /// Brings operands that never change, those that are given, into another form for the fast version. Not asked for in training.
    fn prepack(&self, _operands: &[Option<Slice>], _shapes: &[&Shape], _precision: Precision) -> Option<Prepacked> {
        None
    }

    /// Bytes of scratch memory the fast version takes from the pool at once, with so many threads.
    fn scratch(&self, _inputs: &[&Shape], _threads: usize) -> usize {
        0
    }

    /// Multiplications and additions of matrix products in one application, for shares of the peak.
    fn flops(&self, _inputs: &[&Shape]) -> u64 {
        0
    }
}
