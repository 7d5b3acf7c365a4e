//! The bias of all pairs of a window in a form that is read in whole registers.
//!
//! It depends on the offset of a pair alone. For keys in one column of the window, the biases of all queries are rows of one *strip*, `(2w − 1)`
//! rows of w queries: those of the key in row r are the T floats that begin w − 1 − r rows down. A head has w strips, and they hold `w·(2w − 1)·w`
//! floats instead of the `T²` of all pairs.

use std::ops::Range;

use super::geometry::line;
use crate::aligned::ALIGN;

/// Where biases lie: the same for every head.
#[derive(Debug)]
pub(super) struct Strips {
    window: usize,
    /// 2w − 1 of the table, whose windows may be larger.
    span: usize,
    /// Floats of a strip; zeros behind its rows, so that the last key's may be read up to its line.
    strip: usize,
    /// Where the biases of each key begin.
    pub starts: Vec<u32>,
}

impl Strips {
    pub fn new(window: usize, span: usize) -> Strips {
        let area = window * window;
        let strip = ((window - 1) * window + line(area)).next_multiple_of(ALIGN);
        let starts = (0..area).map(|j| (j % window * strip + (window - 1 - j / window) * window) as u32).collect();
        Strips { window, span, strip, starts }
    }

    /// Floats of a head.
    pub fn len(&self) -> usize {
        self.window * self.strip
    }

    /// Pieces of strips that are rows of a table: `f(at, first row of the table)` for w floats, which lie in rows one after the other.
    fn rows(&self, mut f: impl FnMut(usize, usize)) {
        let (w, most) = (self.window, self.span.div_ceil(2));
        for column in 0..w {
            for row in 0..2 * w - 1 {
                f(column * self.strip + row * w, (row + most - w) * self.span + most - 1 - column);
            }
        }
    }

    /// The strips of some heads, `[heads, strips]`, from a table `[(2w − 1)², H]`; all times `factor`.
    pub fn expand(&self, table: &[f32], of: usize, heads: Range<usize>, factor: f32, to: &mut [f32]) {
        for (h, to) in heads.zip(to.chunks_exact_mut(self.len())) {
            to.fill(0.0);
            self.rows(|at, first| {
                for (i, to) in to[at..][..self.window].iter_mut().enumerate() {
                    *to = factor * table[(first + i) * of + h];
                }
            });
        }
    }

    /// Adds the gradients of some heads' strips, `[heads, strips]`, to those of their columns of the table, `[heads, (2w − 1)²]`.
    pub fn collect(&self, strips: &[f32], tables: &mut [f32]) {
        for (strips, table) in strips.chunks_exact(self.len()).zip(tables.chunks_exact_mut(self.span * self.span)) {
            self.rows(|at, first| {
                for (to, from) in table[first..][..self.window].iter_mut().zip(&strips[at..]) {
                    *to += from;
                }
            });
        }
    }
}
