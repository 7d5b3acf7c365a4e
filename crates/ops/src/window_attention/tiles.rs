//! One task's memory in single precision, and the way of a window's rows into tiles and back.

use std::ops::Range;

use esvit_simd::panel::{PAD, padded};
use esvit_simd::vector::{Vector, prefetch, stream};

use super::fast::{Operands, RowsMut};
use super::geometry::{PADDING, Window, line};
use crate::aligned::{ALIGN, aligned};

/// Sizes of the tiles: `T` tokens, `D` channels a head, as they are and padded.
#[derive(Clone, Copy)]
pub(super) struct Sizes {
    pub area: usize,
    pub d: usize,
    /// T padded to whole half registers, and to whole rows of scores.
    pub tp: usize,
    pub line: usize,
    /// D padded.
    pub dp: usize,
}

impl Sizes {
    pub fn new(area: usize, d: usize) -> Sizes {
        Sizes { area, d, tp: padded(area), line: line(area), dp: padded(d) }
    }

    /// Floats of one task's tiles: see [`Tiles::new`].
    pub fn floats(&self, group: usize, strips: usize, backward: bool) -> usize {
        let (rows, scores, transposed) = (group * self.tp * self.dp, self.area * self.line, self.dp * self.line);
        let shared = ALIGN + self.line + transposed + 4 * rows + scores;
        if backward { shared + group * strips + transposed + scores + 3 * rows } else { shared }
    }
}

/// One task's tiles.
pub(super) struct Tiles<'s> {
    pub sizes: Sizes,
    pub inverse: &'s mut [f32], // [line]
    pub qkv: &'s mut [f32],     // [Tp, 3, group, Dp], zeros where nothing is
    pub qt: &'s mut [f32],      // [Dp, line], scaled
    pub p: &'s mut [f32],       // [T, line], keys as rows
    pub results: &'s mut [f32], // [Tp, group, Dp]: y; or [Tp, 3, group, Dp]: dq, dk, dv
    // Backward only:
    pub dy: &'s mut [f32],    // [Tp, group, Dp]
    pub dyt: &'s mut [f32],   // [Dp, line]
    pub ds: &'s mut [f32],    // [T, line]
    pub dbias: &'s mut [f32], // [group, strips]
}

impl<'s> Tiles<'s> {
    pub fn new(scratch: &'s mut [f32], sizes: Sizes, group: usize, strips: usize, backward: bool) -> Tiles<'s> {
        let mut scratch = aligned(scratch);
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let on = usize::from(backward);
        let (rows, scores, transposed) = (group * sizes.tp * sizes.dp, sizes.area * sizes.line, sizes.dp * sizes.line);
        let tiles = Tiles {
            sizes,
            inverse: take(sizes.line),
            qkv: take(3 * rows),
            qt: take(transposed),
            p: take(scores),
            results: take((1 + 2 * on) * rows),
            dy: take(on * rows),
            dyt: take(on * transposed),
            ds: take(on * scores),
            dbias: take(on * group * strips),
        };
        tiles.qkv.fill(0.0);
        tiles.dy.fill(0.0);
        tiles.dbias.fill(0.0);
        tiles
    }
}

/// The columns that a task's heads have in matrices of one or three parts (y; q, k, v), and in its tiles.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// Heads of the task.
    pub heads: usize,
    pub d: usize,
    /// Floats of a head in a tile's row.
    pub pitch: usize,
    /// First column of the first head.
    pub first: usize,
    /// C: columns of a part.
    pub c: usize,
}

/// Words of a result; those larger than the caches next to the cores are written past them: nobody reads them before they would have been pushed out.
const STREAM_FROM: usize = 1 << 20;

impl Columns {
    pub fn new(o: &Operands, heads: &Range<usize>, pitch: usize) -> Columns {
        let c = o.three_c / 3;
        let d = c / o.heads;
        Columns { heads: heads.len(), d, pitch, first: heads.start * d, c }
    }

    /// The same of matrices and tiles of words of two bf16, where heads are not padded.
    pub fn in_pairs(&self) -> Columns {
        Columns { heads: self.heads, d: self.d / 2, pitch: self.d / 2, first: self.first / 2, c: self.c / 2 }
    }

    /// Calls `f(at in the tile's row, at in the matrix' row, floats)` for each piece in one piece.
    #[inline(always)]
    fn each(&self, parts: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (pieces, n) = if self.pitch == self.d { (1, self.heads * self.d) } else { (self.heads, self.d) };
        for part in 0..parts {
            for piece in 0..pieces {
                f((part * self.heads + piece) * self.pitch, part * self.c + self.first + piece * self.d, n);
            }
        }
    }

    /// Copies the rows of a window: `[T, parts, heads, pitch]`. Padding is `padding`, or zeros.
    pub fn gather(&self, window: &Window, from: &[f32], parts: usize, padding: Option<&[f32]>, to: &mut [f32]) {
        let width = parts * self.c;
        for (row, &token) in to.chunks_exact_mut(parts * self.heads * self.pitch).zip(window.index) {
            let from = match (token, padding) {
                (PADDING, None) => {
                    row.fill(0.0);
                    continue;
                }
                (PADDING, Some(padding)) => padding,
                _ => &from[(window.first_token + token as usize) * width..][..width],
            };
            self.each(parts, |tile, column, n| row[tile..][..n].copy_from_slice(&from[column..][..n]));
        }
    }

    /// Takes the rows of a tile `[T, parts, heads, pitch]` to where they belong, and those of padding to `padding`. A task's last one is to be followed
    /// by [`stream_end`](esvit_simd::vector::stream_end).
    #[inline(always)]
    pub fn deliver(&self, tile: &[f32], parts: usize, window: &Window, to: RowsMut, mut padding: impl FnMut(&[f32])) {
        let width = parts * self.c;
        for (row, &token) in tile.chunks_exact(parts * self.heads * self.pitch).zip(window.index) {
            if token == PADDING {
                padding(row);
                continue;
            }
            let first = (window.first_token + token as usize) * width;
            assert!(first + width <= to.len);
            self.each(parts, |tile, column, n| {
                // SAFETY: inside the row, and that inside the buffer (assert); these tokens belong to this window alone, these columns
                // to this task's heads.
                let to_row = unsafe { std::slice::from_raw_parts_mut(to.base.add(first + column), n) };
                let from = &row[tile..][..n];
                if to.len >= STREAM_FROM { stream(from, to_row) } else { to_row.copy_from_slice(from) }
            });
        }
    }

    /// Asks for share `share.0` of `share.1` of what the next window has of a matrix of so many parts. Its rows lie too far apart for the processor
    /// to see the pattern.
    #[inline(always)]
    pub fn look_ahead(&self, next: Option<&Window>, share: (usize, usize), matrix: *const f32, parts: usize) {
        let Some(next) = next else { return };
        let tokens = next.index.len();
        for &token in next.index[share.0 * tokens / share.1..(share.0 + 1) * tokens / share.1].iter().filter(|token| **token != PADDING) {
            for part in 0..parts {
                let at = ((next.first_token + token as usize) * parts + part) * self.c + self.first;
                prefetch(matrix.wrapping_add(at), self.heads * self.d);
            }
        }
    }

    /// The same of a result, unless it is streamed.
    #[inline(always)]
    pub fn look_ahead_to(&self, next: Option<&Window>, share: (usize, usize), to: RowsMut, parts: usize) {
        if to.len < STREAM_FROM {
            self.look_ahead(next, share, to.base, parts);
        }
    }
}

/// `to[c, t] = scale·rows[t][c]`, `[Dp, line]`.
///
/// # Safety
/// The CPU has these registers; there are `Tp` rows of `Dp` floats.
#[inline(always)]
pub(super) unsafe fn transpose<V: Vector>(rows: &[*const f32], scale: f32, to: &mut [f32], sizes: &Sizes) {
    for (t, eight) in rows.as_chunks::<PAD>().0.iter().enumerate() {
        for c in (0..sizes.dp).step_by(PAD) {
            debug_assert!((c + PAD - 1) * sizes.line + (t + 1) * PAD <= to.len());
            // SAFETY: columns c..c + 8 of eight rows, to rows c..c + 8 at columns 8t..8t + 8, which exist.
            unsafe { V::transpose8(eight.map(|row| row.add(c)), scale, to.as_mut_ptr().add(c * sizes.line + t * PAD), sizes.line) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::Geometry;
    use super::*;
    use crate::{Layout, Segment};

    #[test]
    fn rows_come_back_to_where_they_were_from_past_the_caches_or_not() {
        let layout = Layout::new(vec![Segment { images: 1, height: 5, width: 6 }]);
        let geometry = Geometry::new(&layout, 4, 2, 2, 4);
        // The larger matrix is streamed; partial registers have a pitch of their own.
        for (d, pitch, c) in [(8, 8, 64), (5, 8, 60), (16, 16, (STREAM_FROM / 30).next_multiple_of(16))] {
            let columns = Columns { heads: 2, d, pitch, first: 2 * d, c };
            let from: Vec<f32> = (0..layout.tokens() * 3 * c).map(|i| i as f32).collect();
            let padding: Vec<f32> = (0..3 * c).map(|i| -(i as f32)).collect();
            let mut to = vec![0.5; from.len()];
            let mut tile = vec![0.0; geometry.area * 3 * 2 * pitch];
            let mut sums = vec![0.0; 3 * 2 * pitch];
            for n in 0..geometry.windows() {
                let window = geometry.window(n);
                columns.gather(&window, &from, 3, Some(&padding), &mut tile);
                let to = RowsMut { base: to.as_mut_ptr(), len: to.len(), pairs: false };
                columns.deliver(&tile, 3, &window, to, |row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v));
            }
            for (i, (to, from)) in to.iter().zip(&from).enumerate() {
                let mine = (2 * d..4 * d).contains(&(i % c));
                assert_eq!(*to, if mine { *from } else { 0.5 }, "{c}: {i}");
            }
            // 64 places for 30 tokens.
            for (i, sum) in sums.iter().enumerate().filter(|(i, _)| i % pitch < d) {
                let (part, head) = (i / (2 * pitch), i / pitch % 2);
                assert_eq!(*sum, 34.0 * padding[part * c + (2 + head) * d + i % pitch]);
            }
        }
    }
}
