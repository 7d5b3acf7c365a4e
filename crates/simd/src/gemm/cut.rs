//! How a product is cut into jobs. Only the shapes decide, so results do not depend on the threads.

use std::ops::Range;

use super::avx512::{LANES, ROWS, VECTORS};
use super::pack::row_words;

/// Columns of a panel of packed b.
pub(super) const PANEL: usize = VECTORS * LANES;
/// Steps (words) of the inner dimension between two visits of the result: 48 columns of packed b are then 48 KB.
const STEPS: usize = 256;
/// Rows of a block at most: its packed a is then 136 KB.
pub(super) const BLOCK_ROWS: usize = 128;
/// Rows of a block at least, where there are more: a panel of b is worth fetching for so many.
const LEAST_ROWS: usize = 48;
/// Panels of a group at most.
const GROUP: usize = 16;
/// Jobs that a product is cut into if it is large enough: what one thread does while the others are done is at most a sixteenth.
const JOBS: usize = 16;
/// Up to so many rows b costs more than a: columns are cut finer, and a is packed once for all jobs.
pub(super) const FEW_ROWS: usize = 512;
/// Results up to this size are cut along an inner dimension that is so many times as long as their sides together, into at most [`PARTS`]
/// parts of at least [`LONG`] elements.
const SMALL_RESULT: usize = 160 << 10;
const LONGER: usize = 4;
const LONG: usize = 1024;
const PARTS: usize = 8;

/// How a product of this size is cut.
#[derive(Clone, Copy)]
pub(super) struct Cut {
    pub m: usize,
    pub n: usize,
    pub inner: Inner,
    /// Parts of the inner dimension, each a whole number of chunks.
    pub parts: usize,
    /// Blocks of rows.
    pub blocks: usize,
    /// Groups of panels.
    pub groups: usize,
    b_given: bool,
}

/// How the inner dimension is cut; packed operands are in this order.
#[derive(Clone, Copy)]
pub(super) struct Inner {
    k: usize,
    /// Elements in a chunk; each chunk is one visit of the result.
    chunk: usize,
    /// Steps of a whole chunk.
    pub steps: usize,
    pub chunks: usize,
    per_step: usize,
}

impl Inner {
    pub fn new(k: usize, per_step: usize) -> Inner {
        let words = k.div_ceil(per_step);
        let steps = words.div_ceil(words.div_ceil(STEPS));
        Inner { k, chunk: steps * per_step, steps, chunks: words.div_ceil(steps), per_step }
    }

    /// Elements of a chunk.
    pub fn range(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk..((chunk + 1) * self.chunk).min(self.k)
    }

    pub fn steps_of(&self, chunk: usize) -> usize {
        self.range(chunk).len().div_ceil(self.per_step)
    }

    /// Words of `n` packed columns.
    pub fn words(&self, n: usize) -> usize {
        n.next_multiple_of(LANES) * self.steps * self.chunks
    }

    /// Where a panel begins in packed b of `n` columns: panel after panel of a chunk, chunk after chunk.
    pub fn place(&self, n: usize, chunk: usize, column: usize) -> usize {
        chunk * self.steps * n.next_multiple_of(LANES) + column * self.steps_of(chunk)
    }
}

/// Panels of a range of columns that begins at one.
pub(super) fn panels(columns: Range<usize>) -> impl Iterator<Item = Range<usize>> + Clone {
    let end = columns.end;
    columns.step_by(PANEL).map(move |start| start..(start + PANEL).min(end))
}

/// Blocks that many rows are cut into, of at most so many rows each.
pub(super) fn blocks(m: usize, most: usize) -> usize {
    m.div_ceil(m.div_ceil(JOBS).clamp(LEAST_ROWS.min(most), most))
}

/// Rows of a block: whole eights, as even as they allow.
pub(super) fn block(m: usize, blocks: usize, i: usize) -> Range<usize> {
    let eights = m.div_ceil(ROWS);
    let at = |i: usize| (i * eights / blocks * ROWS).min(m);
    at(i)..at(i + 1)
}

impl Cut {
    /// `b_given` where b is packed already.
    pub fn new([m, n, k]: [usize; 3], per_step: usize, b_given: bool) -> Cut {
        let inner = Inner::new(k, per_step);
        let parts = match m * n <= SMALL_RESULT && k >= 2 * LONG && k >= LONGER * (m + n) {
            // A power of two is no worse for two threads than for one.
            true => 1 << (k / LONG).min(PARTS).min(inner.chunks).ilog2(),
            false => 1,
        };
        let panels = n.div_ceil(PANEL);
        let (blocks, groups) = if parts > 1 {
            (m.div_ceil(BLOCK_ROWS), panels.div_ceil(GROUP))
        } else if m <= FEW_ROWS {
            let blocks = m.div_ceil(BLOCK_ROWS);
            // Groups of equally many panels, rather than exactly so many groups.
            let each = (panels * if b_given { blocks } else { 1 }).div_ceil(JOBS);
            (blocks, panels.div_ceil(each.min(GROUP)))
        } else {
            (blocks(m, BLOCK_ROWS), panels.div_ceil(GROUP))
        };
        Cut { m, n, inner, parts, blocks, groups, b_given }
    }

    /// Whether b is packed once for all jobs, or before; else each packs its own part just before it uses it, while it is in the cache.
    pub fn shares_b(&self) -> bool {
        self.b_given || self.parts == 1 && self.m > FEW_ROWS
    }

    /// Whether a is packed once for all jobs.
    pub fn shares_a(&self) -> bool {
        self.parts == 1 && self.m <= FEW_ROWS && self.groups > 1
    }

    /// Rows of a block.
    pub fn block(&self, i: usize) -> Range<usize> {
        block(self.m, self.blocks, i)
    }

    /// Columns of a group: whole panels, as even as they allow.
    pub fn group(&self, i: usize) -> Range<usize> {
        let panels = self.n.div_ceil(PANEL);
        let at = |i: usize| (i * panels / self.groups * PANEL).min(self.n);
        at(i)..at(i + 1)
    }

    /// Chunks of a part.
    pub fn part(&self, i: usize) -> Range<usize> {
        i * self.inner.chunks / self.parts..(i + 1) * self.inner.chunks / self.parts
    }

    /// Words of packed a for so many rows of a chunk.
    fn a_words(&self, rows: usize) -> usize {
        rows.next_multiple_of(ROWS) * row_words(self.inner.steps)
    }

    /// Where a block begins in an a that is packed once.
    pub fn a_place(&self, chunk: usize, block: usize) -> usize {
        chunk * self.a_words(self.m) + self.block(block).start * row_words(self.inner.steps)
    }

    /// Where the sums of a block's rows over a chunk are, of all chunks and rows.
    pub fn row_sums_place(&self, chunk: usize, block: usize) -> usize {
        chunk * self.m + self.block(block).start
    }

    /// Scratch memory.
    pub fn scratch(&self, a_in_place: bool) -> Scratch {
        let (shares_a, shares_b) = (self.shares_a() && !a_in_place, self.shares_b());
        let eights = self.m.div_ceil(ROWS).div_ceil(self.blocks);
        let group = (self.n.div_ceil(PANEL).div_ceil(self.groups) * PANEL).min(self.n.next_multiple_of(LANES));
        Scratch {
            sums: if self.parts > 1 { self.parts * self.m * self.n } else { 0 },
            b: if shares_b && !self.b_given { self.inner.words(self.n) } else { 0 },
            a: if shares_a { self.a_words(self.m) * self.inner.chunks } else { 0 },
            each_b: if shares_b { 0 } else { group * self.inner.steps },
            each_a: if shares_a || a_in_place { 0 } else { self.a_words(eights * ROWS) },
        }
    }
}

/// Words of scratch memory.
#[derive(Clone, Copy)]
pub(super) struct Scratch {
    /// Sums of the parts.
    pub sums: usize,
    /// Packed b and a for all jobs.
    pub b: usize,
    pub a: usize,
    /// The same for one job.
    pub each_b: usize,
    pub each_a: usize,
}

impl Scratch {
    /// Bytes on so many threads.
    pub fn bytes(&self, threads: usize) -> usize {
        4 * (self.sums + self.b + self.a + threads * (self.each_b + self.each_a))
    }
}
