//! The sum of any number of values, on a GPU.

use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View};

use crate::Result;

/// Mirrors `Params` in `sum.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    len: u32,
    terms: u32,
    pad: [u32; 2],
}

/// Adds up to four values.
pub static SUM: Kernel = Kernel::new::<Params>("sum", &[include_str!("sum.wgsl")], "main", 5);

/// Terms of one dispatch.
const TERMS: usize = 4;

/// Records `y = x₁ + x₂ + …`, from left to right; all have the length of `y`.
///
/// # Errors
/// When the adapter cannot bind them.
pub fn sum(rec: &mut Recorder, terms: &[View], y: &View) -> Result<()> {
    for piece in rec.row_pieces((y.bytes() / 4) as usize, 4) {
        let part = |view: &View| view.rows(piece.start, piece.len(), 1);
        let y = part(y);
        let mut dispatch = |terms: &[View]| {
            let term = |i: usize| terms.get(i).unwrap_or(&terms[0]);
            let params = Params { len: piece.len() as u32, terms: terms.len() as u32, pad: [0; 2] };
            rec.dispatch(&SUM, &[term(0), term(1), term(2), term(3), &y], &params, Grid::elements(piece.len(), 256))
        };
        let (first, rest) = terms.split_at(TERMS.min(terms.len()));
        dispatch(&first.iter().map(part).collect::<Vec<_>>())?;
        // The sum so far is the first term of every further dispatch.
        for more in rest.chunks(TERMS - 1) {
            dispatch(&std::iter::once(y.clone()).chain(more.iter().map(part)).collect::<Vec<_>>())?;
        }
    }
    Ok(())
}
