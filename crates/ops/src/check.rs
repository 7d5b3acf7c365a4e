//! Checks that the shape rules share.

use esvit_graph::{Error, Result, Shape};

/// Checks the number of operands.
pub(crate) fn arity(op: &'static str, inputs: &[&Shape], want: usize) -> Result<()> {
    if inputs.len() == want { Ok(()) } else { Err(Error::Arity { op, want, got: inputs.len() }) }
}

/// Checks an operand's shape.
pub(crate) fn shape(op: &'static str, operand: &'static str, got: &Shape, want: &[usize]) -> Result<()> {
    if got == want { Ok(()) } else { Err(Error::Shape { op, operand, want: format!("{want:?}"), got: got.clone() }) }
}

/// Rows and columns of an operand that must be a matrix.
pub(crate) fn matrix(op: &'static str, operand: &'static str, got: &Shape) -> Result<(usize, usize)> {
    match got[..] {
        [rows, cols] => Ok((rows, cols)),
        _ => Err(Error::Shape { op, operand, want: "a matrix".into(), got: got.clone() }),
    }
}
