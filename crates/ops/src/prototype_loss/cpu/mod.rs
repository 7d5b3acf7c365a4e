//! The streamed version: tiles of K, two passes.
//!
//! Exponentials are powers of 2, with the logarithm of e in the factors of their arguments.

mod backward;
mod forward;
mod kept;
mod prototypes;
mod rows;

use std::ops::Range;

use esvit_graph::{Io, Shape};
use esvit_simd::gemm::{self, PackedTile, Product, Rounding};
use esvit_simd::{Mat, MatMut, Pool};

pub(super) use backward::backward;
pub(super) use forward::forward;
use kept::KeptLogits;
pub(super) use kept::kept_words;
use prototypes::Prototypes;

use super::PrototypeLoss;
use crate::precision::rounding;

/// Prototypes of one tile.
const TILE: usize = 256;
/// Student rows whose logits are alive at once: with the tile, half a megabyte.
const BLOCK: usize = 512;
/// Ranges of K that are worked on independently. Fixed: results must not depend on the threads.
const RANGES: usize = 8;

/// Operands of both passes.
struct LossOperands<'a> {
    z: &'a [f32],
    student: Prototypes<'a>,
    teacher_z: &'a [f32],
    teacher: Prototypes<'a>,
    center: &'a [f32],
    inverse_temperature: f32,
    pair_teacher: &'a [u32],
    pair_weight: &'a [f32],
    inverse_tau: f32,
    ns: usize,
    nt: usize,
    k: usize,
    d: usize,
    rounding: Rounding,
    pool: &'a Pool,
}

impl<'a> LossOperands<'a> {
    fn new(op: &PrototypeLoss, io: &Io<'a>) -> LossOperands<'a> {
        let ((ns, d), (k, _), (nt, _)) = (io.matrix(0), io.matrix(1), io.matrix(3));
        LossOperands {
            z: io.f32(0),
            student: Prototypes::new(io.f32(1), io.f32(2)),
            teacher_z: io.f32(3),
            teacher: Prototypes::new(io.f32(4), io.f32(5)),
            center: io.f32(6),
            inverse_temperature: 1.0 / io.scalar(7),
            pair_teacher: io.inputs[8].u32(),
            pair_weight: io.f32(9),
            inverse_tau: 1.0 / op.student_temperature,
            ns,
            nt,
            k,
            d,
            rounding: rounding(io.precision),
            pool: io.pool,
        }
    }

    fn ranges(&self) -> usize {
        ranges(self.k)
    }

    /// Prototypes of a range, a whole number of tiles but for the last.
    fn range(&self, r: usize) -> Range<usize> {
        let tiles = self.k.div_ceil(TILE);
        let at = |r: usize| (r * tiles / self.ranges() * TILE).min(self.k);
        at(r)..at(r + 1)
    }

    /// `c (+)= a·b` on this thread, with `ahead` prefetched.
    fn product(&self, a: Mat, b: &PackedTile, c: MatMut, accumulate: bool, ahead: &[f32]) {
        Product { rounding: self.rounding, accumulate, prefetch: ahead, ..Default::default() }.run_tile(a, b, c, self.pool);
    }

    /// Logits `[rows, tile]` of rows `z` and a tile's prototypes.
    fn logits(&self, z: &[f32], w: &PackedTile, out: &mut [f32], ahead: &[f32]) {
        let rows = z.len() / self.d;
        let n = out.len() / rows;
        self.product(Mat::new(z, rows, self.d), w, MatMut::new(out, rows, n), false, ahead);
    }

    /// Student rows of a block.
    fn rows(&self, rows: &Range<usize>) -> &'a [f32] {
        &self.z[rows.start * self.d..rows.end * self.d]
    }

    /// The tile behind this one.
    fn next(&self, tile: &Range<usize>) -> Range<usize> {
        tile.end..(tile.end + TILE).min(self.k)
    }

    /// Share of `all` that is prefetched while a block of the student's rows is multiplied.
    fn share<'v>(&self, all: &'v [f32], block: &Range<usize>) -> &'v [f32] {
        let at = |row: usize| row * all.len() / self.ns;
        &all[at(block.start)..at(block.end)]
    }

    /// Format of the kept logits.
    fn kept(&self) -> KeptLogits {
        KeptLogits::new(self.ns, self.nt, self.rounding)
    }
}

/// A thread's tiles.
struct LossTiles<'s> {
    /// Logits of the teacher, `[Nt, tile]`.
    teacher: &'s mut [f32],
    /// Logits of a block of student rows.
    student: &'s mut [f32],
    /// Prototypes packed as columns.
    columns: &'s mut [f32],
    /// Prototypes packed as rows, in the second pass.
    rows: &'s mut [f32],
    /// Gradient of the prototypes, in the second pass.
    dw: &'s mut [f32],
}

impl<'s> LossTiles<'s> {
    /// Floats of each tile.
    fn sizes(ns: usize, nt: usize, d: usize, backward: bool) -> [usize; 5] {
        let [rows, dw] = if backward { [PackedTile::words(TILE, d), TILE * d] } else { [0; 2] };
        // Each begins at a cache line.
        [nt * TILE, BLOCK.min(ns) * TILE, PackedTile::words(d, TILE), rows, dw].map(|size| size.next_multiple_of(16))
    }

    fn of(x: &LossOperands, backward: bool, scratch: &'s mut [f32]) -> LossTiles<'s> {
        let mut rest = scratch;
        let [teacher, student, columns, rows, dw] = LossTiles::sizes(x.ns, x.nt, x.d, backward).map(|size| {
            let (piece, after) = std::mem::take(&mut rest).split_at_mut(size);
            rest = after;
            piece
        });
        LossTiles { teacher, student, columns, rows, dw }
    }
}

/// Independent ranges of K.
fn ranges(k: usize) -> usize {
    RANGES.min(k.div_ceil(TILE))
}

/// Scratch bytes of one call: tiles and the largest product of each thread; sums of each range (forward), or its dz and the packed rows
/// (backward).
pub(super) fn scratch(inputs: &[&Shape], threads: usize, backward: bool) -> usize {
    let (ns, d, k, nt, pairs) = (inputs[0][0], inputs[0][1], inputs[1][0], inputs[3][0], inputs[8][0]);
    let (threads, block) = (threads.min(ranges(k)), BLOCK.min(ns));
    let tiles: usize = LossTiles::sizes(ns, nt, d, backward).iter().sum();
    let mut products = gemm::scratch(nt, TILE, d, 1).max(gemm::scratch(block, TILE, d, 1));
    if backward {
        products = products.max(gemm::scratch(block, d, TILE, 1)).max(gemm::scratch(TILE, d, block, 1));
    }
    let rows = if backward { ns * d } else { 2 * ns + 5 * nt + pairs };
    let packed = if backward { ns.div_ceil(BLOCK) * PackedTile::words(block, d) } else { 0 };
    4 * (threads * tiles + ranges(k) * rows + packed) + threads * products
}

/// Pieces of at most `step`.
fn steps(range: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    let end = range.end;
    range.step_by(step).map(move |start| start..(start + step).min(end))
}
