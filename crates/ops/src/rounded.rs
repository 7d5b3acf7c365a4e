//! Results that a program keeps [in pairs](esvit_graph::Program::with_bf16x2), from operators that compute single precision.

use esvit_graph::{Shape, SliceMut};
use esvit_simd::{Pool, half};
use rayon::prelude::*;

/// Whether rows of a matrix are whole words of two.
pub(crate) fn even(matrix: &Shape) -> bool {
    matrix.len() == 2 && matrix[1].is_multiple_of(2)
}

/// Calls `f(piece, rows, out)` as [`Pool::for_rows`] does; where the result is kept in pairs, `out` is memory of the piece's own that is then rounded.
/// Rows have an even number of elements there.
pub(crate) fn for_rows(pool: &Pool, out: &mut SliceMut, width: usize, rows: usize, f: impl Fn(usize, &mut [f32]) + Sync + Send) {
    match out {
        SliceMut::F32(out) => pool.for_rows(out, width, rows, f),
        SliceMut::U32(words) => words.par_chunks_mut((rows * width / 2).max(1)).enumerate().for_each(|(i, words)| {
            let mut piece = vec![0.0; 2 * words.len()];
            f(i * rows, &mut piece);
            half::round(&piece, words);
        }),
    }
}
