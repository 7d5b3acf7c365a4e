use crate::Shape;

/// Error of building a program. A program that was built runs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An operand has a shape the operator cannot take.
    #[error("{op}: {operand} must be {want}, got {got:?}")]
    Shape {
        /// Operator.
        op: &'static str,
        /// Operand.
        operand: &'static str,
        /// Accepted shapes, in words or as a shape.
        want: String,
        /// Shape that came.
        got: Shape,
    },
    /// An operator was given the wrong number of operands.
    #[error("{op} takes {want} operands, got {got}")]
    Arity {
        /// Operator.
        op: &'static str,
        /// Number it takes.
        want: usize,
        /// Number that came.
        got: usize,
    },
    /// A gradient flows into an operator that has no rule for it.
    #[error("{op} has no gradient, but one of its inputs needs it; detach it or add a rule")]
    NoGradient {
        /// Operator.
        op: &'static str,
    },
    /// An attribute of an operator or layer is out of range.
    #[error("{op}: {what}")]
    Attribute {
        /// Operator or layer.
        op: &'static str,
        /// One clause saying what is wrong.
        what: String,
    },
    /// A leaf was not given a slice, or one of another length or type.
    #[error("input `{name}` must be {want}, got {got}")]
    Binding {
        /// Name of the leaf.
        name: String,
        /// Length and type it has.
        want: String,
        /// Length and type that came.
        got: String,
    },
    /// An operator without GPU kernels in a program for a GPU.
    #[error("{op} cannot run on a GPU yet; use --device cpu")]
    NoKernel {
        /// Operator.
        op: &'static str,
    },
    /// The GPU, or its memory.
    #[error(transparent)]
    Gpu(#[from] esvit_gpu::Error),
}
