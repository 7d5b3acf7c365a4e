//! Sliding windows: a window sees itself, its neighbors and the global tokens; a global token sees everything.
//!
//! Source: Zhang et al. 2021 (Vision Longformer), <https://arxiv.org/abs/2103.15358>; `Long2DSCSelfAttention` of microsoft/esvit.

use super::geometry::{AttentionGeometry, PADDING, QueryGroup};
use crate::{Layout, Segment};

/// Neighbors, of the eight, that a window sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbors {
    /// All of them.
    All,
    /// None: the window itself.
    Own,
    /// Drawn at run time for each segment: 0 for all, 1 to 8 for the window itself and that neighbor (row by row, without the center).
    Drawn,
    /// Not even the window itself: global tokens alone.
    Global,
}

/// Keys beyond the last token of a grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Nothing.
    Open,
    /// The other end of the grid. Padding of the last windows, reached that way, takes part with key and value zero, as in microsoft/esvit.
    Cyclic,
    /// Nothing; and a token sees the tokens at most a window's side away, not whole windows. With all neighbors only.
    Exact,
}

/// Geometry of a sliding window over grids of tokens. In queries and keys an image is its `globals` global tokens, then its grid; in the
/// keys also `pooled` rows behind, one for each window.
#[derive(Clone, Debug)]
pub struct SlidingWindows {
    /// The grids, without global tokens.
    pub layout: Layout,
    /// Global tokens of an image.
    pub globals: usize,
    /// w: side of a window.
    pub window: usize,
    /// Neighbors that a window sees.
    pub neighbors: Neighbors,
    /// Keys beyond the grid.
    pub border: Border,
    /// Whether the grid's tokens are queries.
    pub local_queries: bool,
    /// Whether the global tokens are queries.
    pub global_queries: bool,
    /// Whether there is a row of pooled keys for every window.
    pub pooled: bool,
}

impl SlidingWindows {
    fn windows(&self, s: &Segment) -> (usize, usize) {
        (s.height.div_ceil(self.window), s.width.div_ceil(self.window))
    }

    /// Rows of the bias for neighbors: one for each offset (Δrow, Δcolumn) of a key from its query, at
    /// `(Δrow + 2w − 1)·(4w − 1) + Δcolumn + 2w − 1`.
    pub fn offset_rows(&self) -> usize {
        (4 * self.window - 1).pow(2)
    }

    /// First row of the bias of a segment's pooled keys: row `window·M + key`, with M windows.
    pub fn pooled_row(&self, segment: usize) -> usize {
        let before = self.layout.segments()[..segment].iter();
        let squares = before.map(|s| if self.pooled { (self.windows(s).0 * self.windows(s).1).pow(2) } else { 0 });
        self.offset_rows() + self.globals + squares.sum::<usize>()
    }

    /// First row of the bias of a segment's global queries: row `query·(globals + tokens) + key`. Before it, behind the offsets, a row for
    /// each global key of local queries.
    pub fn global_row(&self, segment: usize) -> usize {
        let before = self.layout.segments()[..segment].iter();
        let rows = before.map(|s| self.globals * (self.globals + s.tokens_per_image()));
        self.pooled_row(self.layout.segments().len()) + rows.sum::<usize>()
    }

    /// Rows of the whole bias.
    pub fn bias_rows(&self) -> usize {
        self.global_row(self.layout.segments().len())
    }

    /// Rows of an image in the keys.
    fn key_rows(&self, s: &Segment) -> usize {
        let (rows, cols) = self.windows(s);
        self.globals + s.tokens_per_image() + if self.pooled { rows * cols } else { 0 }
    }

    /// Queries and keys, with a row of the bias for each pair if there is one.
    pub(super) fn geometry(&self, bias: bool) -> AttentionGeometry {
        let segments = self.layout.segments();
        let rows = |n: usize| (self.globals + segments[n].tokens_per_image(), self.key_rows(&segments[n]));
        let bias_rows = if bias { self.bias_rows() } else { 0 };
        AttentionGeometry::new(&self.layout, bias_rows, rows, |n| match self.neighbors {
            Neighbors::All => vec![self.groups(n, &[0, 1, 2, 3, 4, 5, 6, 7, 8])],
            Neighbors::Own => vec![self.groups(n, &[4])],
            Neighbors::Global => vec![self.groups(n, &[])],
            Neighbors::Drawn => {
                let one = |draw: usize| self.groups(n, &[4, if draw > 4 { draw } else { draw - 1 }]);
                std::iter::once(self.groups(n, &[0, 1, 2, 3, 4, 5, 6, 7, 8])).chain((1..9).map(one)).collect()
            }
        })
    }

    /// Groups of an image of segment `n`; `seen` counts the 3 × 3 windows around, row by row.
    fn groups(&self, n: usize, seen: &[usize]) -> Vec<QueryGroup> {
        let s = &self.layout.segments()[n];
        let mut groups = Vec::new();
        if self.local_queries {
            let (rows, cols) = self.windows(s);
            for window in 0..rows * cols {
                let group = self.window_group(n, window / cols, window % cols, seen);
                match self.border {
                    Border::Exact => self.split_exactly(s, group, &mut groups),
                    _ => groups.push(group),
                }
            }
        }
        if self.global_queries {
            let tokens = self.globals + s.tokens_per_image();
            for query in 0..self.globals {
                let first = (self.global_row(n) + query * tokens) as u32;
                groups.push(QueryGroup {
                    queries: vec![query as u32],
                    query_slots: vec![0],
                    keys: (0..tokens as u32).collect(),
                    key_slots: (first..first + tokens as u32).collect(),
                    absolute: tokens,
                });
            }
        }
        groups
    }

    /// The window at (row, col): its queries, and global, pooled and neighboring keys.
    fn window_group(&self, n: usize, row: usize, col: usize, seen: &[usize]) -> QueryGroup {
        let (s, w, globals) = (&self.layout.segments()[n], self.window, self.globals);
        let (rows, cols) = self.windows(s);
        let span = 4 * w - 1;
        // Query (r, c) of the window and key (r', c') of the 3 × 3 windows, whose corner is at (−w, −w): Δrow = r' − w − r.
        let mut group = QueryGroup::default();
        for (r, c) in (0..w * w).map(|t| (t / w, t % w)).filter(|(r, c)| row * w + r < s.height && col * w + c < s.width) {
            group.queries.push((globals + (row * w + r) * s.width + col * w + c) as u32);
            group.query_slots.push(((w - 1 - r) * span + w - 1 - c) as u32);
        }
        for global in 0..globals {
            group.keys.push(global as u32);
            group.key_slots.push((self.offset_rows() + global) as u32);
        }
        if self.pooled {
            let first = self.pooled_row(n) + (row * cols + col) * rows * cols;
            for key in 0..rows * cols {
                group.keys.push((globals + s.tokens_per_image() + key) as u32);
                group.key_slots.push((first + key) as u32);
            }
        }
        group.absolute = group.keys.len();
        for &block in seen {
            let (down, right) = (block / 3, block % 3); // 1 is the window itself
            let (near_row, near_col) = match self.border {
                Border::Cyclic => ((row + rows + down - 1) % rows, (col + cols + right - 1) % cols),
                _ if row + down < 1 || row + down > rows || col + right < 1 || col + right > cols => continue,
                _ => (row + down - 1, col + right - 1),
            };
            for (r, c) in (0..w * w).map(|t| (t / w, t % w)) {
                let (token_row, token_col) = (near_row * w + r, near_col * w + c);
                let inside = token_row < s.height && token_col < s.width;
                // The original masks padding where the last windows are reached without wrapping around.
                let beyond =
                    (row + down == rows && (rows - 1) * w + r >= s.height) || (col + right == cols && (cols - 1) * w + c >= s.width);
                if if self.border == Border::Cyclic { beyond } else { !inside } {
                    continue;
                }
                group.keys.push(if inside { (globals + token_row * s.width + token_col) as u32 } else { PADDING });
                group.key_slots.push(((down * w + r) * span + right * w + c) as u32);
            }
        }
        group
    }

    /// Splits a group into one for each query, with the keys at most w rows and columns away.
    fn split_exactly(&self, s: &Segment, group: QueryGroup, groups: &mut Vec<QueryGroup>) {
        let at = |row: u32| ((row as usize - self.globals) / s.width, (row as usize - self.globals) % s.width);
        for (&query, &slot) in group.queries.iter().zip(&group.query_slots) {
            let (r, c) = at(query);
            let near = |k: usize| {
                let (row, col) = at(group.keys[k]);
                row.abs_diff(r) <= self.window && col.abs_diff(c) <= self.window
            };
            let kept: Vec<usize> = (0..group.keys.len()).filter(|&k| k < group.absolute || near(k)).collect();
            groups.push(QueryGroup {
                queries: vec![query],
                query_slots: vec![slot],
                keys: kept.iter().map(|&k| group.keys[k]).collect(),
                key_slots: kept.iter().map(|&k| group.key_slots[k]).collect(),
                absolute: group.absolute,
            });
        }
    }
}
