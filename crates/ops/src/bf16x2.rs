//! Matrices that a program keeps as words of two bf16 ([`Program::with_bf16x2`](esvit_graph::Program::with_bf16x2)), beside those in single
//! precision.

use esvit_graph::{Io, Shape, SliceMut};
use esvit_simd::{Mat, MatMut, Pool, half};
use rayon::prelude::*;

/// Whether the rows of a matrix are whole words of two.
pub(crate) fn has_even_rows(matrix: &Shape) -> bool {
    matrix.len() == 2 && matrix[1].is_multiple_of(2)
}

/// Operand `i` of a matrix product, in the type the program keeps it in.
pub(crate) fn operand<'a>(io: &Io<'a>, i: usize) -> Mat<'a> {
    let (rows, cols) = io.matrix(i);
    match io.bf16x2(i) {
        Some(words) => Mat::bf16x2(words, rows, cols),
        None => Mat::new(io.f32(i), rows, cols),
    }
}

/// Result of a matrix product, in the type the program keeps it in.
pub(crate) fn result<'a>(y: &'a mut SliceMut, rows: usize, cols: usize) -> MatMut<'a> {
    match y {
        SliceMut::U32(words) => MatMut::bf16x2(words, rows, cols),
        SliceMut::F32(y) => MatMut::new(y, rows, cols),
    }
}

/// Calls `f(first row, out)` for pieces of `rows` rows, as [`Pool::for_rows`] does. Where the result is kept as words of two bf16, `out` is
/// memory of the piece's own that is then rounded; rows have an even number of elements there.
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
