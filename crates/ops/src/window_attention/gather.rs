//! Gathers a window's rows into tiles, and scatters them back.

use std::ops::Range;

use esvit_simd::vector::{prefetch, stream};

use super::geometry::{PADDING, WindowTokens};
use super::operands::{WindowOperands, WindowRowsMut};

/// Columns of a task's heads, in matrices of one or three parts (y; q, k, v) and in its tiles.
#[derive(Clone, Copy)]
pub(super) struct HeadColumns {
    /// Heads of the task.
    pub heads: usize,
    /// D: channels of a head.
    pub d: usize,
    /// Floats of a head in a tile's row.
    pub pitch: usize,
    /// First column of the first head.
    pub first: usize,
    /// C: columns of a part.
    pub c: usize,
}

/// Words of a result from which on it is written past the caches: larger than those next to the cores, it would leave them before it is
/// read.
const STREAM_FROM: usize = 1 << 20;

impl HeadColumns {
    /// Columns of some heads, with `pitch` floats of a head in a tile's row.
    pub fn new(o: &WindowOperands, heads: &Range<usize>, pitch: usize) -> HeadColumns {
        let c = o.three_c / 3;
        let d = c / o.heads;
        HeadColumns { heads: heads.len(), d, pitch, first: heads.start * d, c }
    }

    /// These columns in matrices and tiles of words of two bf16, where heads are not padded.
    pub fn in_words(&self) -> HeadColumns {
        HeadColumns { heads: self.heads, d: self.d / 2, pitch: self.d / 2, first: self.first / 2, c: self.c / 2 }
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
    pub fn gather(&self, window: &WindowTokens, from: &[f32], parts: usize, padding: Option<&[f32]>, to: &mut [f32]) {
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

    /// Scatters the rows of a tile `[T, parts, heads, pitch]` to their tokens, and those of padding to `padding`. A task's last call is to
    /// be followed by [`stream_end`](esvit_simd::vector::stream_end).
    #[inline(always)]
    pub fn scatter(&self, tile: &[f32], parts: usize, window: &WindowTokens, to: WindowRowsMut, mut padding: impl FnMut(&[f32])) {
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

    /// Prefetches share `share.0` of `share.1` of the next window's rows of a matrix of so many parts: they lie too far apart for the
    /// processor to see the pattern.
    #[inline(always)]
    pub fn prefetch_rows(&self, next: Option<&WindowTokens>, share: (usize, usize), matrix: *const f32, parts: usize) {
        let Some(next) = next else { return };
        let tokens = next.index.len();
        for &token in next.index[share.0 * tokens / share.1..(share.0 + 1) * tokens / share.1].iter().filter(|token| **token != PADDING) {
            for part in 0..parts {
                let at = ((next.first_token + token as usize) * parts + part) * self.c + self.first;
                prefetch(matrix.wrapping_add(at), self.heads * self.d);
            }
        }
    }

    /// Prefetches a share of the next window's rows of a result, unless they are streamed.
    #[inline(always)]
    pub fn prefetch_result(&self, next: Option<&WindowTokens>, share: (usize, usize), to: WindowRowsMut, parts: usize) {
        if to.len < STREAM_FROM {
            self.prefetch_rows(next, share, to.base, parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::geometry::WindowGeometry;
    use super::*;
    use crate::{Layout, Segment};

    #[test]
    fn rows_come_back_to_where_they_were_from_past_the_caches_or_not() {
        let layout = Layout::new(vec![Segment { images: 1, height: 5, width: 6 }]);
        let geometry = WindowGeometry::new(&layout, 4, 2, 2, 4);
        // The larger matrix is streamed; partial registers have a pitch of their own.
        for (d, pitch, c) in [(8, 8, 64), (5, 8, 60), (16, 16, (STREAM_FROM / 30).next_multiple_of(16))] {
            let columns = HeadColumns { heads: 2, d, pitch, first: 2 * d, c };
            let from: Vec<f32> = (0..layout.tokens() * 3 * c).map(|i| i as f32).collect();
            let padding: Vec<f32> = (0..3 * c).map(|i| -(i as f32)).collect();
            let mut to = vec![0.5; from.len()];
            let mut tile = vec![0.0; geometry.area * 3 * 2 * pitch];
            let mut sums = vec![0.0; 3 * 2 * pitch];
            for n in 0..geometry.windows() {
                let window = geometry.window(n);
                columns.gather(&window, &from, 3, Some(&padding), &mut tile);
                let to = WindowRowsMut { base: to.as_mut_ptr(), len: to.len(), bf16x2: false };
                columns.scatter(&tile, 3, &window, to, |row| sums.iter_mut().zip(row).for_each(|(sum, v)| *sum += v));
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
