//! Blocking of a product in MC × NC × KC, and its constants. Only the shapes decide, so results do not depend on the threads.
//!
//! Packed operands consist of 32-bit *words*: one f32, or two bf16 that are neighbors along the inner dimension. A *step* is one word of
//! the inner dimension. A *chunk* is a KC block, a *group* an NC block: whole panels of NR columns.

use std::ops::Range;

/// Lanes of a vector.
pub const LANES: usize = 16;
/// Rows of a micro-tile.
pub const MR: usize = 8;
/// Vectors in a row of a micro-tile: 8 × 3 sums, three vectors of b and one of a fill the 32 registers but for four.
pub const NR_VECTORS: usize = 3;
/// Columns of a micro-tile, and of a panel of packed b.
pub const NR: usize = NR_VECTORS * LANES;
/// Steps of a chunk (KC), between two visits of the result: 48 columns of packed b are then 48 KB.
const KC_STEPS: usize = 256;
/// Rows of a block at most (MC): its packed a is then 136 KB.
pub const MC: usize = 128;
/// Rows of a block at least, where there are more: a panel of b is worth fetching for so many.
const MC_MIN: usize = 48;
/// Panels of a group at most (NC / NR).
const NC_PANELS: usize = 16;
/// Jobs of a product that is large enough: one thread's work while the others are done is at most a sixteenth.
const JOBS: usize = 16;
/// Rows up to which b costs more than a: columns are blocked finer, and a is packed once for all jobs.
pub const FEW_ROWS: usize = 512;
/// Elements of a result up to which a long inner dimension is split into parts (split-K).
const SPLIT_K_RESULT: usize = 160 << 10;
/// Length of the inner dimension, in sums of the result's sides, from which it is split.
const SPLIT_K_RATIO: usize = 4;
/// Elements of the inner dimension in a part at least.
const SPLIT_K_LEAST: usize = 1024;
/// Parts of the inner dimension at most.
const SPLIT_K_PARTS: usize = 8;

/// Elements of the inner dimension in one step.
pub const fn per_step<const BF16: bool>() -> usize {
    if BF16 { 2 } else { 1 }
}

/// Distance of the rows of a packed block of a, in words, and an eighth of that of its micro-panels of eight rows: not a power of two, or
/// they would share the cache's sets.
pub const fn row_words(steps: usize) -> usize {
    steps.next_multiple_of(LANES) + LANES
}

/// Blocking of a product of one size.
#[derive(Clone, Copy)]
pub struct Blocking {
    pub m: usize,
    pub n: usize,
    pub inner: InnerBlocking,
    /// Parts of the inner dimension (split-K), each a whole number of chunks.
    pub parts: usize,
    /// Blocks of rows.
    pub blocks: usize,
    /// Groups of panels.
    pub groups: usize,
    b_is_packed: bool,
}

/// Blocking of the inner dimension in chunks; packed operands are in this order.
#[derive(Clone, Copy)]
pub struct InnerBlocking {
    k: usize,
    /// Elements in a chunk; each chunk is one visit of the result.
    chunk: usize,
    /// Steps of a whole chunk.
    pub steps: usize,
    pub chunks: usize,
    per_step: usize,
}

impl InnerBlocking {
    pub fn new(k: usize, per_step: usize) -> InnerBlocking {
        let words = k.div_ceil(per_step);
        let steps = words.div_ceil(words.div_ceil(KC_STEPS));
        InnerBlocking { k, chunk: steps * per_step, steps, chunks: words.div_ceil(steps), per_step }
    }

    /// Elements of a chunk.
    pub fn range(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk..((chunk + 1) * self.chunk).min(self.k)
    }

    /// Steps of a chunk, the last of which may be shorter.
    pub fn steps_of(&self, chunk: usize) -> usize {
        self.range(chunk).len().div_ceil(self.per_step)
    }

    /// Words of `n` packed columns.
    pub fn words(&self, n: usize) -> usize {
        n.next_multiple_of(LANES) * self.steps * self.chunks
    }

    /// Offset of a panel in packed b of `n` columns: panel after panel of a chunk, chunk after chunk.
    pub fn panel_offset(&self, n: usize, chunk: usize, column: usize) -> usize {
        chunk * self.steps * n.next_multiple_of(LANES) + column * self.steps_of(chunk)
    }
}

/// Panels of a range of columns that begins at one.
pub fn panels(columns: Range<usize>) -> impl Iterator<Item = Range<usize>> + Clone {
    let end = columns.end;
    columns.step_by(NR).map(move |start| start..(start + NR).min(end))
}

/// Number of blocks of `m` rows, of at most so many rows each.
pub fn blocks(m: usize, most: usize) -> usize {
    m.div_ceil(m.div_ceil(JOBS).clamp(MC_MIN.min(most), most))
}

/// Rows of block `i`: whole eights, as even as they allow.
pub fn block(m: usize, blocks: usize, i: usize) -> Range<usize> {
    let eights = m.div_ceil(MR);
    let at = |i: usize| (i * eights / blocks * MR).min(m);
    at(i)..at(i + 1)
}

impl Blocking {
    /// Blocking of `[m, k]` times `[k, n]`, where b may be packed already.
    pub fn new([m, n, k]: [usize; 3], per_step: usize, b_is_packed: bool) -> Blocking {
        let inner = InnerBlocking::new(k, per_step);
        let parts = match m * n <= SPLIT_K_RESULT && k >= 2 * SPLIT_K_LEAST && k >= SPLIT_K_RATIO * (m + n) {
            // A power of two is no worse for two threads than for one.
            true => 1 << (k / SPLIT_K_LEAST).min(SPLIT_K_PARTS).min(inner.chunks).ilog2(),
            false => 1,
        };
        let panels = n.div_ceil(NR);
        let (blocks, groups) = if parts > 1 {
            (m.div_ceil(MC), panels.div_ceil(NC_PANELS))
        } else if m <= FEW_ROWS {
            let blocks = m.div_ceil(MC);
            // Groups of equally many panels, rather than exactly so many groups.
            let each = (panels * if b_is_packed { blocks } else { 1 }).div_ceil(JOBS);
            (blocks, panels.div_ceil(each.min(NC_PANELS)))
        } else {
            (blocks(m, MC), panels.div_ceil(NC_PANELS))
        };
        Blocking { m, n, inner, parts, blocks, groups, b_is_packed }
    }

    /// Whether b is packed once for all jobs, or before; else each job packs its group just before it uses it, while it is in the cache.
    pub fn shares_b(&self) -> bool {
        self.b_is_packed || self.parts == 1 && self.m > FEW_ROWS
    }

    /// Whether a is packed once for all jobs.
    pub fn shares_a(&self) -> bool {
        self.parts == 1 && self.m <= FEW_ROWS && self.groups > 1
    }

    /// Rows of block `i`.
    pub fn block(&self, i: usize) -> Range<usize> {
        block(self.m, self.blocks, i)
    }

    /// Columns of group `i`: whole panels, as even as they allow.
    pub fn group(&self, i: usize) -> Range<usize> {
        let panels = self.n.div_ceil(NR);
        let at = |i: usize| (i * panels / self.groups * NR).min(self.n);
        at(i)..at(i + 1)
    }

    /// Chunks of part `i`.
    pub fn part(&self, i: usize) -> Range<usize> {
        i * self.inner.chunks / self.parts..(i + 1) * self.inner.chunks / self.parts
    }

    /// Words of packed a for so many rows of a chunk.
    fn a_words(&self, rows: usize) -> usize {
        rows.next_multiple_of(MR) * row_words(self.inner.steps)
    }

    /// Offset of a block in an a that is packed once.
    pub fn a_offset(&self, chunk: usize, block: usize) -> usize {
        chunk * self.a_words(self.m) + self.block(block).start * row_words(self.inner.steps)
    }

    /// Offset of the sums of a block's rows over a chunk, among those of all chunks and rows.
    pub fn row_sums_offset(&self, chunk: usize, block: usize) -> usize {
        chunk * self.m + self.block(block).start
    }

    /// Scratch memory of the product.
    pub fn scratch(&self, a_in_place: bool) -> BlockingScratch {
        let (shares_a, shares_b) = (self.shares_a() && !a_in_place, self.shares_b());
        let eights = self.m.div_ceil(MR).div_ceil(self.blocks);
        let group = (self.n.div_ceil(NR).div_ceil(self.groups) * NR).min(self.n.next_multiple_of(LANES));
        BlockingScratch {
            sums: if self.parts > 1 { self.parts * self.m * self.n } else { 0 },
            b: if shares_b && !self.b_is_packed { self.inner.words(self.n) } else { 0 },
            a: if shares_a { self.a_words(self.m) * self.inner.chunks } else { 0 },
            b_per_job: if shares_b { 0 } else { group * self.inner.steps },
            a_per_job: if shares_a || a_in_place { 0 } else { self.a_words(eights * MR) },
        }
    }
}

/// Scratch memory of a product, in words.
#[derive(Clone, Copy)]
pub struct BlockingScratch {
    /// Sums of the parts.
    pub sums: usize,
    /// Packed b for all jobs.
    pub b: usize,
    /// Packed a for all jobs.
    pub a: usize,
    /// Packed b of one job.
    pub b_per_job: usize,
    /// Packed a of one job.
    pub a_per_job: usize,
}

impl BlockingScratch {
    /// Bytes on so many threads.
    pub fn bytes(&self, threads: usize) -> usize {
        4 * (self.sums + self.b + self.a + threads * (self.b_per_job + self.a_per_job))
    }
}
