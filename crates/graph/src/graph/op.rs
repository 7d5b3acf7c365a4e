//! The contract of an operator.

use std::any::Any;
use std::fmt::Debug;
use std::sync::Arc;

use esvit_gpu::{Recorder, View};
use esvit_simd::Pool;

use crate::{DType, Error, Graph, Node, Prepacked, Result, Shape, Slice, SliceMut, Value};

/// Which of an operator's two versions runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The plain one: what the operator means, without threads or lanes. The oracle of the tests.
    Reference,
    /// The one that users run.
    Fast,
}

/// How the operands of matrix products are rounded. Sums and reductions are single precision either way, and so is everything that is stored, unless a
/// program keeps [pairs](crate::Program::with_bf16x2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Not at all: the reference.
    #[default]
    F32,
    /// To half the bits where the device multiplies those faster: bf16 on CPUs, f16 on GPUs. As `F32` elsewhere.
    Mixed,
}

/// What an operator gets at run time. Inputs and outputs never overlap.
pub struct Io<'a> {
    /// Operands, in order.
    pub inputs: Vec<Slice<'a>>,
    /// Results, in order; contents unspecified at entry.
    pub outputs: Vec<SliceMut<'a>>,
    /// Shapes of the operands.
    pub shapes: Vec<&'a Shape>,
    /// Threads and scratch memory.
    pub pool: &'a Pool,
    /// Rounding of matrix products; the plain version ignores it.
    pub precision: Precision,
    /// What [`Op::prepack`] returned; the plain version gets nothing. Operands that it replaces may be empty.
    pub prepacked: Option<&'a (dyn Any + Send + Sync)>,
}

impl<'a> Io<'a> {
    /// Operand `i` as floats.
    pub fn f32(&self, i: usize) -> &'a [f32] {
        self.inputs[i].f32()
    }

    /// The scalar operand `i`.
    pub fn scalar(&self, i: usize) -> f32 {
        self.inputs[i].f32()[0]
    }

    /// Rows and columns of operand `i`.
    pub fn matrix(&self, i: usize) -> (usize, usize) {
        (self.shapes[i][0], self.shapes[i][1..].iter().product())
    }

    /// Operand `i` in pairs, where [`Program::with_bf16x2`](crate::Program::with_bf16x2) keeps it so.
    pub fn bf16x2(&self, i: usize) -> Option<&'a [u32]> {
        match self.inputs[i] {
            Slice::U32(words) => Some(words),
            _ => None,
        }
    }

    /// The only result, as floats.
    pub fn out(&mut self) -> &mut [f32] {
        self.outputs[0].f32()
    }

    /// The first `N` results as floats, all at once.
    pub fn outs<const N: usize>(&mut self) -> [&mut [f32]; N] {
        let mut rest = self.outputs.iter_mut();
        std::array::from_fn(|_| rest.next().expect("an output each").f32())
    }
}

/// What an operator gets when it is recorded for a GPU. Inputs and outputs never overlap.
#[derive(Debug)]
pub struct GpuIo<'a> {
    /// Operands, in order; 32-bit values, pixels four to a word.
    pub inputs: Vec<View>,
    /// Results, in order; contents unspecified at run time.
    pub outputs: Vec<View>,
    /// Shapes of the operands.
    pub shapes: Vec<&'a Shape>,
    /// Rounding of matrix products.
    pub precision: Precision,
}

impl GpuIo<'_> {
    /// Whether operands of matrix products are rounded to half precision.
    pub fn half(&self) -> bool {
        self.precision == Precision::Mixed
    }

    /// Rows and columns of operand `i`.
    pub fn matrix(&self, i: usize) -> (usize, usize) {
        (self.shapes[i][0], self.shapes[i][1..].iter().product())
    }
}

/// The one operator that reads the first result of another.
pub struct Next<'a> {
    /// The operator.
    pub op: &'a dyn Op,
    /// Number of its operands.
    pub operands: usize,
    /// Which of them it is.
    pub operand: usize,
}

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

    /// The operator that does `next` as well, if there is one; this one has `operands` operands. Its operands are this one's, then the others of `next`.
    /// It needs neither a gradient nor kernels for a GPU. `constant` says that weights do not change, so that they will be [prepacked](Op::prepack).
    fn absorb(&self, _operands: usize, _next: &Next, _constant: bool) -> Option<Arc<dyn Op>> {
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
