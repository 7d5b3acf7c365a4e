use esvit_graph::Io;
use esvit_simd::gemm::gemm;
use esvit_simd::{Mat, MatMut, lanes};
use rayon::prelude::*;

use super::{GLOBAL_CROPS, RegionMatch};

/// The original's bound on a norm, below which a row is scaled by a constant.
const EPS: f32 = 1e-12;

pub(super) fn reference(op: &RegionMatch, io: &mut Io) {
    let (student, teacher) = (io.f32(0), io.f32(1));
    let (_, c) = io.matrix(0);
    let unit = |row: &[f32]| -> Vec<f64> {
        let norm = row.iter().map(|&v| v as f64 * v as f64).sum::<f64>().sqrt().max(EPS as f64);
        row.iter().map(|&v| v as f64 / norm).collect()
    };
    let mut matches = io.outputs[0].u32().iter_mut();
    for crop in 0..op.crop_tokens.len() {
        for image in 0..op.batch {
            for token in 0..op.crop_tokens[crop] {
                let row = op.first_row(crop, image) + token;
                let s = unit(&student[row * c..][..c]);
                for q in RegionMatch::targets(crop) {
                    let first = op.first_row(q, image);
                    let mut best = (f64::NEG_INFINITY, 0);
                    for j in first..first + op.crop_tokens[q] {
                        let cos: f64 = unit(&teacher[j * c..][..c]).iter().zip(&s).map(|(a, b)| a * b).sum();
                        if cos > best.0 {
                            best = (cos, j);
                        }
                    }
                    *matches.next().expect("a place for each pair") = best.1 as u32;
                }
            }
        }
    }
}

pub(super) fn fast(op: &RegionMatch, io: &mut Io) {
    let (student, teacher) = (io.f32(0), io.f32(1));
    let ((_, c), (teacher_rows, _)) = (io.matrix(0), io.matrix(1));
    let pool = io.pool;
    // Only the teacher's rows are scaled: a student row's own length does not change its argmax.
    let mut unit = pool.scratch(teacher_rows * c);
    pool.for_rows(&mut unit, c, 64, |first, piece| {
        for (i, row) in piece.chunks_mut(c).enumerate() {
            let from = &teacher[(first + i) * c..][..c];
            lanes::scale(1.0 / lanes::dot(from, from).sqrt().max(EPS), from, row);
        }
    });
    let unit = &*unit;
    // One piece of work for each crop and image; its pairs lie together in the result.
    let mut rest = io.outputs[0].u32();
    let mut jobs = Vec::new();
    for crop in 0..op.crop_tokens.len() {
        for image in 0..op.batch {
            let (piece, tail) = rest.split_at_mut(op.crop_tokens[crop] * RegionMatch::targets(crop).count());
            jobs.push((crop, image, piece));
            rest = tail;
        }
    }
    jobs.into_par_iter().for_each(|(crop, image, matches)| {
        let tokens = op.crop_tokens[crop];
        let targets = RegionMatch::targets(crop).count();
        let rows = &student[op.first_row(crop, image) * c..][..tokens * c];
        let widest = op.crop_tokens[..GLOBAL_CROPS].iter().max().copied().unwrap_or(0);
        let mut similarity = pool.scratch(tokens * widest);
        for (slot, q) in RegionMatch::targets(crop).enumerate() {
            let (first, candidates) = (op.first_row(q, image), op.crop_tokens[q]);
            let similarity = &mut similarity[..tokens * candidates];
            let t = Mat::new(&unit[first * c..], candidates, c).t();
            gemm(Mat::new(rows, tokens, c), t, MatMut::new(similarity, tokens, candidates), false, None);
            for (token, row) in similarity.chunks(candidates).enumerate() {
                let best = lanes::max(row);
                let j = row.iter().position(|&v| v == best).unwrap_or(0);
                matches[token * targets + slot] = (first + j) as u32;
            }
        }
    });
}
