//! Shape rules share these few sentences.

use esvit_graph::{Error, Result, Shape};

/// The number of operands is right.
pub(crate) fn arity(op: &'static str, inputs: &[&Shape], want: usize) -> Result<()> {
    if inputs.len() == want { Ok(()) } else { Err(Error::Arity { op, want, got: inputs.len() }) }
}

/// An operand has this shape.
pub(crate) fn shape(op: &'static str, operand: &'static str, got: &Shape, want: &[usize]) -> Result<()> {
    if got == want { Ok(()) } else { Err(Error::Shape { op, operand, want: format!("{want:?}"), got: got.clone() }) }
}

/// An operand is a matrix; its rows and columns.
pub(crate) fn matrix(op: &'static str, operand: &'static str, got: &Shape) -> Result<(usize, usize)> {
    match got[..] {
        [rows, cols] => Ok((rows, cols)),
        _ => Err(Error::Shape { op, operand, want: "a matrix".into(), got: got.clone() }),
    }
}
