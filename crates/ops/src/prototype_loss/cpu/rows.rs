//! What is done to a row of a tile's logits. Sums run in a fixed number of lanes, so that they do not depend on the machine's vectors.

use esvit_simd::cpu::madd;
use esvit_simd::lanes::{self, LANES};
use esvit_simd::math::exp2;
use esvit_simd::multiversion;

multiversion! {
    /// `y = (row − centre)·scale`; leaves `e = 2^(y − max)`, max the larger of the row's and the one before; returns max, `Σ e` and `Σ e·y`.
    pub(super) fn teacher_exponentials(row: &mut [f32], centre: &[f32], scale: f32, before: f32) -> (f32, f32, f32) {
        let mut max = [before; LANES];
        let (blocks, tail) = row.as_chunks_mut::<LANES>();
        let (centres, centre_tail) = centre.as_chunks::<LANES>();
        for (block, centre) in blocks.iter_mut().zip(centres) {
            for l in 0..LANES {
                let y = (block[l] - centre[l]) * scale;
                max[l] = if y > max[l] { y } else { max[l] };
                block[l] = y;
            }
        }
        for ((y, centre), max) in tail.iter_mut().zip(centre_tail).zip(&mut max) {
            *y = (*y - centre) * scale;
            *max = if *y > *max { *y } else { *max };
        }
        let max = lanes::largest(max);
        let (mut sum, mut energy) = ([0.0f32; LANES], [0.0f32; LANES]);
        for block in blocks {
            for l in 0..LANES {
                let e = exp2::<FMA>(block[l] - max);
                sum[l] += e;
                energy[l] = madd::<FMA>(e, block[l], energy[l]);
                block[l] = e;
            }
        }
        for (l, y) in tail.iter_mut().enumerate() {
            let e = exp2::<FMA>(*y - max);
            sum[l] += e;
            energy[l] = madd::<FMA>(e, *y, energy[l]);
            *y = e;
        }
        (max, lanes::total(sum), lanes::total(energy))
    }
}

multiversion! {
    /// The maximum of `y = row·scale` and the one before, and `Σ 2^(y − max)`; a scale above 0.
    pub(super) fn student_exponentials(row: &[f32], scale: f32, before: f32) -> (f32, f32) {
        let mut max = [f32::NEG_INFINITY; LANES];
        let (blocks, tail) = row.as_chunks::<LANES>();
        for block in blocks {
            for l in 0..LANES { max[l] = if block[l] > max[l] { block[l] } else { max[l] }; }
        }
        for (l, &v) in tail.iter().enumerate() { max[l] = if v > max[l] { v } else { max[l] }; }
        let max = lanes::largest(max) * scale;
        let max = if max > before { max } else { before };
        let mut sum = [0.0f32; LANES];
        for block in blocks {
            for l in 0..LANES { sum[l] += exp2::<FMA>(madd::<FMA>(block[l], scale, -max)); }
        }
        for (l, v) in tail.iter().enumerate() { sum[l] += exp2::<FMA>(madd::<FMA>(*v, scale, -max)); }
        (max, lanes::total(sum))
    }
}

multiversion! {
    /// `q = 2^((row − centre)·scale − lse)`.
    pub(super) fn teacher_probabilities(row: &mut [f32], centre: &[f32], scale: f32, lse: f32) {
        for (q, &centre) in row.iter_mut().zip(centre) { *q = exp2::<FMA>(madd::<FMA>(*q - centre, scale, -lse)); }
    }
}

multiversion! {
    /// `p = weight·2^(row·scale − lse)`.
    pub(super) fn student_probabilities(row: &mut [f32], scale: f32, lse: f32, weight: f32) {
        for p in row.iter_mut() { *p = weight * exp2::<FMA>(madd::<FMA>(*p, scale, -lse)); }
    }
}
