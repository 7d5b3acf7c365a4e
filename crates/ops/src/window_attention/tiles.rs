//! One task's tiles in single precision.

use esvit_simd::panel::{PAD, padded};
use esvit_simd::vector::Vector;

use super::bias::line;
use crate::aligned::{ALIGN, aligned};

/// Sizes of the tiles: `T` tokens, `D` channels a head, as they are and padded.
#[derive(Clone, Copy)]
pub(super) struct WindowTileSizes {
    /// T.
    pub area: usize,
    /// D.
    pub d: usize,
    /// T padded to whole half registers, and to whole rows of scores.
    pub tp: usize,
    pub line: usize,
    /// D padded.
    pub dp: usize,
}

impl WindowTileSizes {
    /// Sizes for windows of `area` tokens and heads of `d` channels.
    pub fn new(area: usize, d: usize) -> WindowTileSizes {
        WindowTileSizes { area, d, tp: padded(area), line: line(area), dp: padded(d) }
    }

    /// Floats of one task's tiles: see [`F32WindowTiles::new`].
    pub fn floats(&self, group: usize, panels: usize, backward: bool) -> usize {
        let (rows, scores, transposed) = (group * self.tp * self.dp, self.area * self.line, self.dp * self.line);
        let shared = ALIGN + self.line + transposed + 4 * rows + scores;
        if backward { shared + group * panels + transposed + scores + 3 * rows } else { shared }
    }
}

/// One task's tiles.
pub(super) struct F32WindowTiles<'s> {
    pub sizes: WindowTileSizes,
    pub inverse: &'s mut [f32], // [line]
    pub qkv: &'s mut [f32],     // [Tp, 3, group, Dp], zeros where nothing is
    pub qt: &'s mut [f32],      // [Dp, line], scaled
    pub p: &'s mut [f32],       // [T, line], keys as rows
    pub results: &'s mut [f32], // [Tp, group, Dp]: y; or [Tp, 3, group, Dp]: dq, dk, dv
    // Backward only:
    pub dy: &'s mut [f32],    // [Tp, group, Dp]
    pub dyt: &'s mut [f32],   // [Dp, line]
    pub ds: &'s mut [f32],    // [T, line]
    pub dbias: &'s mut [f32], // [group, panels]
}

impl<'s> F32WindowTiles<'s> {
    /// Tiles in scratch memory of [`WindowTileSizes::floats`].
    pub fn new(scratch: &'s mut [f32], sizes: WindowTileSizes, group: usize, panels: usize, backward: bool) -> F32WindowTiles<'s> {
        let mut scratch = aligned(scratch);
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let on = usize::from(backward);
        let (rows, scores, transposed) = (group * sizes.tp * sizes.dp, sizes.area * sizes.line, sizes.dp * sizes.line);
        let tiles = F32WindowTiles {
            sizes,
            inverse: take(sizes.line),
            qkv: take(3 * rows),
            qt: take(transposed),
            p: take(scores),
            results: take((1 + 2 * on) * rows),
            dy: take(on * rows),
            dyt: take(on * transposed),
            ds: take(on * scores),
            dbias: take(on * group * panels),
        };
        tiles.qkv.fill(0.0);
        tiles.dy.fill(0.0);
        tiles.dbias.fill(0.0);
        tiles
    }
}

/// `to[c, t] = scale·rows[t][c]`, `[Dp, line]`.
///
/// # Safety
/// The CPU has these registers; there are `Tp` rows of `Dp` floats.
#[inline(always)]
pub(super) unsafe fn transpose<V: Vector>(rows: &[*const f32], scale: f32, to: &mut [f32], sizes: &WindowTileSizes) {
    for (t, eight) in rows.as_chunks::<PAD>().0.iter().enumerate() {
        for c in (0..sizes.dp).step_by(PAD) {
            debug_assert!((c + PAD - 1) * sizes.line + (t + 1) * PAD <= to.len());
            // SAFETY: columns c..c + 8 of eight rows, to rows c..c + 8 at columns 8t..8t + 8, which exist.
            unsafe { V::transpose8(eight.map(|row| row.add(c)), scale, to.as_mut_ptr().add(c * sizes.line + t * PAD), sizes.line) };
        }
    }
}
