//! Column sums over many rows: each piece of rows adds up on its own, then the pieces are added in
//! order, so the result does not depend on the number of threads.

use esvit_simd::{Pool, lanes};
use rayon::prelude::*;

/// Rows of one piece. Fixed, so that the order of additions is.
const PIECE: usize = 256;

/// Scratch bytes of [`column_sums`].
pub(crate) fn scratch(rows: usize, width: usize) -> usize {
    let pieces = rows.div_ceil(PIECE).max(1);
    if pieces == 1 { 0 } else { 4 * pieces * width }
}

/// Adds up `width` columns over `rows` rows. `add(range, sums)` adds the rows of a range to `sums`.
pub(crate) fn column_sums(
    pool: &Pool,
    rows: usize,
    width: usize,
    out: &mut [f32],
    add: impl Fn(std::ops::Range<usize>, &mut [f32]) + Sync,
) {
    let pieces = rows.div_ceil(PIECE).max(1);
    if pieces == 1 {
        out.fill(0.0);
        add(0..rows, out);
        return;
    }
    let mut partial = pool.scratch(pieces * width);
    partial.par_chunks_mut(width).enumerate().for_each(|(i, sums)| {
        sums.fill(0.0);
        add(i * PIECE..((i + 1) * PIECE).min(rows), sums);
    });
    out.copy_from_slice(&partial[..width]);
    for sums in partial.chunks(width).skip(1) {
        lanes::accumulate(sums, out);
    }
}
