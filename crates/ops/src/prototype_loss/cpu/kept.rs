//! Logits that are kept for the backward pass.

use esvit_simd::gemm::Rounding;
use esvit_simd::vector::stream;
use esvit_simd::{cpu, half};

use super::{TILE, ranges};

/// Words of a tile of both networks' logits in f32.
fn tile_words(ns: usize, nt: usize) -> usize {
    (ns + nt) * TILE
}

/// Words that are kept with a budget of `bytes`: the same for each range, and no more than there is to keep.
pub(in crate::prototype_loss) fn kept_words(bytes: usize, ns: usize, nt: usize, k: usize) -> usize {
    let (ranges, all) = (ranges(k), tile_words(ns, nt) * k.div_ceil(TILE).div_ceil(ranges(k)));
    (bytes / 4 / ranges).min(all) * ranges
}

/// Logits of the first tiles of a range, for the backward pass: of each tile the teacher's, then the student's.
///
/// As f16 where products round to bf16: half the memory, and three more digits than the products leave right.
#[derive(Clone, Copy)]
pub(super) struct KeptLogits {
    half: bool,
    tile_words: usize,
}

impl KeptLogits {
    pub(super) fn new(ns: usize, nt: usize, rounding: Rounding) -> KeptLogits {
        let half = rounding == Rounding::Bf16 && cpu::bf16();
        KeptLogits { half, tile_words: tile_words(ns, nt) / if half { 2 } else { 1 } }
    }

    /// Words of tile `t` of a range, if it is kept.
    pub(super) fn tile<'w>(&self, words: &'w [f32], t: usize) -> Option<&'w [f32]> {
        words.get(t * self.tile_words..(t + 1) * self.tile_words)
    }

    pub(super) fn tile_mut<'w>(&self, words: &'w mut [f32], t: usize) -> Option<&'w mut [f32]> {
        words.get_mut(t * self.tile_words..(t + 1) * self.tile_words)
    }

    /// Stores logits at element `at` of a tile, to be read after [`stream_end`](esvit_simd::vector::stream_end).
    pub(super) fn store(&self, tile: &mut [f32], at: usize, logits: &[f32]) {
        if self.half {
            let bits: &mut [u16] = bytemuck::cast_slice_mut(tile);
            half::narrow(logits, &mut bits[at..at + logits.len()]);
        } else {
            stream(logits, &mut tile[at..at + logits.len()]);
        }
    }

    /// Loads kept logits at element `at` of a tile.
    pub(super) fn load(&self, tile: &[f32], at: usize, logits: &mut [f32]) {
        if self.half {
            let bits: &[u16] = bytemuck::cast_slice(tile);
            half::widen(&bits[at..at + logits.len()], logits);
        } else {
            logits.copy_from_slice(&tile[at..at + logits.len()]);
        }
    }
}
