//! The second pass: gradients of the student's rows and prototypes.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use esvit_graph::Io;
use esvit_simd::gemm::PackedTile;
use esvit_simd::{Mat, MatMut, lanes};
use rayon::prelude::*;

use super::{BLOCK, LossOperands, LossTiles, TILE, rows, steps};
use crate::prototype_loss::PrototypeLoss;

/// Operands and factors that all ranges of K share.
struct BackwardPass<'a> {
    op: &'a PrototypeLoss,
    x: LossOperands<'a>,
    /// Logarithms to the base 2.
    lse_s: Vec<f32>,
    lse_t: Vec<f32>,
    /// Gradient of the loss divided by τ.
    scale: f32,
    /// `scale` times the weight of each student row.
    row_weight: Vec<f32>,
    /// Blocks of student rows, packed once for all tiles.
    z: Vec<PackedTile<'a>>,
}

/// Results of a range of K, and its kept logits.
struct GradientRange<'a> {
    range: Range<usize>,
    dz: &'a mut [f32],
    dv: &'a mut [f32],
    dg: &'a mut [f32],
    kept: &'a [f32],
}

impl BackwardPass<'_> {
    fn range(&self, job: GradientRange) {
        let (op, x) = (self.op, &self.x);
        let GradientRange { range, dz, dv, dg, kept: words } = job;
        let mut scratch = x.pool.scratch(LossTiles::sizes(x.ns, x.nt, x.d, true).iter().sum());
        let tiles = LossTiles::of(x, true, &mut scratch);
        let kept = x.kept();
        let first = range.start;
        let [inverse_temperature, inverse_tau] = [x.inverse_temperature * LOG2_E, x.inverse_tau * LOG2_E];
        for (t, tile) in steps(range, TILE).enumerate() {
            let n = tile.len();
            let logits = kept.tile(words, t);
            let teacher = &mut tiles.teacher[..x.nt * n];
            if logits.is_none() {
                let w = x.teacher.columns(&tile, &x.teacher.lengths(&tile), x.rounding, tiles.columns);
                x.logits(x.teacher_z, &w, teacher, x.student.directions(&tile));
            }
            for (j, q) in teacher.chunks_mut(n).enumerate() {
                if let Some(logits) = logits {
                    kept.load(logits, j * n, q);
                }
                rows::teacher_probabilities(q, &x.center[tile.clone()], inverse_temperature, self.lse_t[j]);
            }
            let (directions, lengths) = (x.student.directions(&tile), x.student.lengths(&tile));
            // Prefetched while this tile is multiplied: the operands of the next one's first products.
            let next = x.next(&tile);
            let [soon, later] = match kept.tile(words, t + 1) {
                Some(logits) => [x.student.directions(&next), logits],
                None => [x.teacher.directions(&next), &[]],
            };
            let rows = tile.start - first..tile.end - first;
            let dv = &mut dv[rows.start * x.d..rows.end * x.d];
            let w = PackedTile::rows(directions, lengths.factors(), x.rounding, tiles.rows);
            let w_columns = logits.is_none().then(|| x.student.columns(&tile, &lengths, x.rounding, tiles.columns));
            let dw = &mut tiles.dw[..n * x.d];
            for (b, block) in steps(0..x.ns, BLOCK).enumerate() {
                let g = &mut tiles.student[..block.len() * n];
                if let Some(w) = &w_columns {
                    x.logits(x.rows(&block), w, g, &[]);
                }
                for (i, g) in block.clone().zip(g.chunks_mut(n)) {
                    if let Some(logits) = logits {
                        kept.load(logits, x.nt * TILE + i * n, g);
                    }
                    rows::student_probabilities(g, inverse_tau, self.lse_s[i], self.row_weight[i]);
                    for p in op.pairs(i) {
                        lanes::axpy(-self.scale * x.pair_weight[p], &teacher[x.pair_teacher[p] as usize * n..][..n], g);
                    }
                }
                let g = Mat::new(g, block.len(), n);
                let dz = MatMut::new(&mut dz[block.start * x.d..], block.len(), x.d);
                x.product(g, &w, dz, t > 0, x.share(later, &block));
                x.product(g.t(), &self.z[b], MatMut::new(dw, n, x.d), b > 0, x.share(soon, &block));
            }
            x.student.gradients(&tile, &lengths, dw, dv, &mut dg[rows]);
        }
    }
}

/// See [`PrototypeLoss`].
pub(in crate::prototype_loss) fn backward(op: &PrototypeLoss, io: &mut Io) {
    let x = LossOperands::new(op, io);
    let pool = io.pool;
    let base2 = |lse: &[f32]| lse.iter().map(|lse| lse * LOG2_E).collect();
    let scale = io.scalar(12) * x.inverse_tau;
    let row_weight = (0..x.ns).map(|i| scale * x.pair_weight[op.pairs(i)].iter().sum::<f32>()).collect();
    let words = PackedTile::words(BLOCK.min(x.ns), x.d);
    let mut packed = pool.scratch(x.ns.div_ceil(BLOCK) * words);
    let blocks = steps(0..x.ns, BLOCK).zip(packed.chunks_mut(words));
    let z = blocks.map(|(block, words)| PackedTile::rows(x.rows(&block), &[1.0; BLOCK][..block.len()], x.rounding, words)).collect();
    let kept = io.inputs.get(13).map_or(&[][..], |kept| kept.f32());
    let pass = BackwardPass { op, lse_s: base2(io.f32(10)), lse_t: base2(io.f32(11)), scale, row_weight, z, x };
    let x = &pass.x;
    let kept_each = kept.len() / x.ranges();

    let [dz, mut dv, mut dg] = io.outs();
    let mut partial = pool.scratch(x.ranges() * x.ns * x.d);
    let mut jobs = Vec::new();
    for (r, dz) in partial.chunks_mut(x.ns * x.d).enumerate() {
        let range = x.range(r);
        let (dv_piece, dv_rest) = dv.split_at_mut(range.len() * x.d);
        let (dg_piece, dg_rest) = dg.split_at_mut(range.len());
        jobs.push(GradientRange { range, dz, dv: dv_piece, dg: dg_piece, kept: &kept[r * kept_each..][..kept_each] });
        (dv, dg) = (dv_rest, dg_rest);
    }
    jobs.into_par_iter().for_each(|job| pass.range(job));
    pool.for_rows(dz, x.d, 64, |first, piece| {
        let range = first * x.d..first * x.d + piece.len();
        piece.copy_from_slice(&partial[range.clone()]);
        for part in partial.chunks(x.ns * x.d).skip(1) {
            lanes::accumulate(&part[range.clone()], piece);
        }
    });
}
