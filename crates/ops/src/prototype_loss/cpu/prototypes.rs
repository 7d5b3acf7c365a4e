//! Prototypes from directions `v` and magnitudes `g`, a tile at a time: `W_k = g_k·v_k/|v_k|`.

use std::ops::Range;

use esvit_simd::cpu::madd;
use esvit_simd::gemm::{PackedTile, Rounding};
use esvit_simd::multiversion;
use esvit_simd::vector::{stream, stream_end};

use super::{TILE, rows};

/// Directions `[K, D]` and magnitudes `[K]` of a network's prototypes.
#[derive(Clone, Copy)]
pub(super) struct Prototypes<'a> {
    v: &'a [f32],
    g: &'a [f32],
    d: usize,
}

/// Lengths of a tile's directions, and the factors that make prototypes of them.
pub(super) struct Lengths {
    squares: [f32; TILE],
    factors: [f32; TILE],
    n: usize,
}

impl Lengths {
    /// Factors `g/|v|`, one for each direction.
    pub(super) fn factors(&self) -> &[f32] {
        &self.factors[..self.n]
    }
}

impl<'a> Prototypes<'a> {
    pub(super) fn new(v: &'a [f32], g: &'a [f32]) -> Prototypes<'a> {
        Prototypes { v, g, d: v.len() / g.len() }
    }

    /// Directions of a tile, `[tile, D]`.
    pub(super) fn directions(&self, tile: &Range<usize>) -> &'a [f32] {
        &self.v[tile.start * self.d..tile.end * self.d]
    }

    pub(super) fn lengths(&self, tile: &Range<usize>) -> Lengths {
        let mut lengths = Lengths { squares: [0.0; TILE], factors: [0.0; TILE], n: tile.len() };
        for (i, v) in self.directions(tile).chunks(self.d).enumerate() {
            lengths.squares[i] = rows::dot(v, v);
        }
        for (i, g) in self.g[tile.clone()].iter().enumerate() {
            lengths.factors[i] = g / lengths.squares[i].sqrt();
        }
        lengths
    }

    /// Prototypes of a tile as columns, packed into `to`.
    pub(super) fn columns<'t>(&self, tile: &Range<usize>, lengths: &Lengths, rounding: Rounding, to: &'t mut [f32]) -> PackedTile<'t> {
        PackedTile::columns(self.directions(tile), lengths.factors(), rounding, to)
    }

    /// The logit of one row for each prototype of a tile.
    pub(super) fn logit(&self, tile: &Range<usize>, lengths: &Lengths, z: &[f32], out: &mut [f32]) {
        for ((v, factor), out) in self.directions(tile).chunks(self.d).zip(&lengths.factors).zip(out) {
            *out = factor * rows::dot(v, z);
        }
    }

    /// `dv` and `dg` of a tile from its `dW`, which is overwritten.
    pub(super) fn gradients(&self, tile: &Range<usize>, lengths: &Lengths, dw: &mut [f32], dv: &mut [f32], dg: &mut [f32]) {
        let each = self.directions(tile).chunks(self.d).zip(dw.chunks_mut(self.d)).zip(dv.chunks_mut(self.d));
        for (i, ((v, dw), dv)) in each.enumerate() {
            let (square, factor) = (lengths.squares[i], lengths.factors[i]);
            let along = rows::dot(dw, v);
            dg[i] = along / square.sqrt();
            reject(v, along / square, factor, dw);
            // It is read next as a whole, long after the caches have lost it.
            stream(dw, dv);
        }
        stream_end();
    }
}

multiversion! {
    /// `dw = factor·(dw − along·v)`.
    fn reject(v: &[f32], along: f32, factor: f32, dw: &mut [f32]) {
        for (dw, &v) in dw.iter_mut().zip(v) { *dw = factor * madd::<FMA>(-along, v, *dw); }
    }
}
