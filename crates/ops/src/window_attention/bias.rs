//! Bias of all pairs of a window, in panels that are read in whole registers.
//!
//! It depends on the offset of a pair alone. For keys in one column of the window, the biases of all queries are rows of one *panel*,
//! `(2w − 1)` rows of w queries: those of the key in row r are the T floats that begin w − 1 − r rows down. A head has w panels, and they
//! hold `w·(2w − 1)·w` floats instead of the `T²` of all pairs.

use std::ops::Range;

use crate::aligned::ALIGN;

/// Length of a row of biases, scores or masks: whole registers of any kind.
pub(super) const fn line(area: usize) -> usize {
    area.next_multiple_of(2 * ALIGN)
}

/// Layout of the biases of a head, which all heads share.
#[derive(Debug)]
pub(super) struct BiasPanels {
    window: usize,
    /// 2w − 1 of the table, whose windows may be larger.
    span: usize,
    /// Floats of a panel; zeros behind its rows, so that the last key's may be read up to its line.
    panel: usize,
    /// First float of the biases of each key.
    pub starts: Vec<u32>,
}

impl BiasPanels {
    /// Panels of windows of `window` x `window` tokens, from a table of `span` x `span` offsets.
    pub fn new(window: usize, span: usize) -> BiasPanels {
        let area = window * window;
        let panel = ((window - 1) * window + line(area)).next_multiple_of(ALIGN);
        let starts = (0..area).map(|j| (j % window * panel + (window - 1 - j / window) * window) as u32).collect();
        BiasPanels { window, span, panel, starts }
    }

    /// Floats of a head.
    pub fn len(&self) -> usize {
        self.window * self.panel
    }

    /// Calls `f(at, first row of the table)` for each w floats of a panel that come from w consecutive rows of a table.
    fn rows(&self, mut f: impl FnMut(usize, usize)) {
        let (w, most) = (self.window, self.span.div_ceil(2));
        for column in 0..w {
            for row in 0..2 * w - 1 {
                f(column * self.panel + row * w, (row + most - w) * self.span + most - 1 - column);
            }
        }
    }

    /// Expands a table `[(2w − 1)², H]` into the panels of some heads, `[heads, panels]`, all times `factor`.
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

    /// Adds the gradients of some heads' panels, `[heads, panels]`, to those of their columns of the table, `[heads, (2w − 1)²]`.
    pub fn collect(&self, panels: &[f32], tables: &mut [f32]) {
        for (panels, table) in panels.chunks_exact(self.len()).zip(tables.chunks_exact_mut(self.span * self.span)) {
            self.rows(|at, first| {
                for (to, from) in table[first..][..self.window].iter_mut().zip(&panels[at..]) {
                    *to += from;
                }
            });
        }
    }
}
