//! A product cut into blocks: what is packed when, and who computes which part of the result.
//!
//! Every element is one sum over the inner dimension in an order that only the shapes decide, so results do not depend on the threads.
//!
//! - *Shared*: b is packed once for all, then pieces of the result (rows × columns) are computed independently, each packing its rows of a.
//! - *Own*: where few rows share b (or a result is small and its inner dimension long, as in a weight's gradient), each piece packs its own part of b
//!   just before it uses it, while it is in the cache. Long inner dimensions are cut into parts whose sums are added up in order.

use std::ops::Range;

use rayon::prelude::*;

use super::avx512::{self, Base, Block, LANES, ROWS, VECTORS};
use super::{Mat, Product};
use crate::{Pool, lanes};

/// Steps (words) of the inner dimension between two visits of the result: 48 columns of packed b are then 48 KB.
const STEPS: usize = 256;
/// Rows of a piece at most: its packed a is then 136 KB.
const BLOCK_ROWS: usize = 128;
/// Columns of a piece at most.
const GROUP: usize = 16 * VECTORS * LANES;
/// Results up to this size are cut along the inner dimension, from [`LONG`] elements on, into at most [`PARTS`] parts.
const SMALL_RESULT: usize = 160 << 10;
const LONG: usize = 2048;
const PARTS: usize = 8;

/// How a product of this size is cut.
#[derive(Clone, Copy)]
struct Cut {
    m: usize,
    n: usize,
    k: usize,
    /// Elements of the inner dimension in a chunk; each chunk is one visit of the result.
    chunk: usize,
    /// Steps of a whole chunk.
    steps: usize,
    block_rows: usize,
    /// Parts of the inner dimension, each a whole number of chunks.
    parts: usize,
    chunks: usize,
}

impl Cut {
    fn new(m: usize, n: usize, k: usize, per_step: usize) -> Cut {
        let words = k.div_ceil(per_step);
        let chunks = words.div_ceil(STEPS);
        let steps = words.div_ceil(chunks);
        let chunks = words.div_ceil(steps);
        let blocks = m.div_ceil(BLOCK_ROWS);
        let block_rows = m.div_ceil(blocks).next_multiple_of(ROWS);
        let parts = if m * n <= SMALL_RESULT && k >= LONG { (k / (LONG / 2)).min(PARTS).min(chunks) } else { 1 };
        Cut { m, n, k, chunk: steps * per_step, steps, block_rows, parts, chunks }
    }

    fn shared(&self) -> bool {
        self.parts == 1 && self.m > self.block_rows
    }

    fn blocks(&self) -> usize {
        self.m.div_ceil(self.block_rows)
    }

    fn block(&self, i: usize) -> Range<usize> {
        i * self.block_rows..((i + 1) * self.block_rows).min(self.m)
    }

    fn groups(&self) -> usize {
        self.n.div_ceil(GROUP)
    }

    fn group(&self, i: usize) -> Range<usize> {
        // As even as whole panels allow.
        let panels = self.n.div_ceil(PANEL);
        let at = |i: usize| (i * panels / self.groups() * PANEL).min(self.n);
        at(i)..at(i + 1)
    }

    fn part(&self, i: usize) -> Range<usize> {
        i * self.chunks / self.parts..(i + 1) * self.chunks / self.parts
    }

    fn inner(&self, chunk: usize) -> Range<usize> {
        chunk * self.chunk..((chunk + 1) * self.chunk).min(self.k)
    }

    fn columns(&self) -> usize {
        self.n.next_multiple_of(LANES)
    }

    /// Words of scratch memory: packed b, or the sums of the parts; and what each piece takes for itself.
    fn scratch(&self) -> [usize; 2] {
        let a = self.block_rows * avx512::row_words(self.steps);
        if self.shared() {
            [self.columns() * self.steps * self.chunks, a]
        } else {
            let sums = if self.parts > 1 { self.parts * self.m * self.n } else { 0 };
            [sums, a + self.columns().min(GROUP) * self.steps]
        }
    }
}

/// Columns of a panel of packed b.
const PANEL: usize = VECTORS * LANES;

/// Panels of a range of columns that begins at one.
fn panels(columns: Range<usize>) -> impl Iterator<Item = Range<usize>> + Clone {
    let end = columns.end;
    columns.step_by(PANEL).map(move |start| start..(start + PANEL).min(end))
}

/// Bytes of scratch memory a product takes, in either rounding.
pub(super) fn scratch(m: usize, n: usize, k: usize, threads: usize) -> usize {
    if m * n * k == 0 {
        return 0;
    }
    let bytes = |per_step| {
        let [once, each] = Cut::new(m, n, k, per_step).scratch();
        4 * (once + threads * each)
    };
    bytes(1).max(bytes(2))
}

/// The result, written in pieces by several threads.
#[derive(Clone, Copy)]
struct Target {
    c: *mut f32,
    row: usize,
}

impl Target {
    /// # Safety
    /// The result reaches that far.
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { self.c.add(offset) }
    }
}

// SAFETY: every piece writes elements of its own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Packed words, written in panels by several threads.
#[derive(Clone, Copy)]
struct Words(*mut u32);

impl Words {
    /// # Safety
    /// The words reach that far.
    unsafe fn at(self, offset: usize) -> *mut u32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

// SAFETY: every thread writes panels of its own.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

/// Runs jobs one after the other, or over the threads.
fn each(parallel: bool, jobs: usize, job: impl Fn(usize) + Sync + Send) {
    if parallel && jobs > 1 { (0..jobs).into_par_iter().for_each(job) } else { (0..jobs).for_each(job) }
}

/// The product; all dimensions above 0.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`].
pub(super) unsafe fn run<const BF16: bool>(how: &Product, a: Mat, b: Mat, c: &mut [f32], pool: &Pool) {
    let cut = Cut::new(a.rows, b.cols, a.cols, avx512::per_step::<BF16>());
    let target = Target { c: c.as_mut_ptr(), row: cut.n };
    if cut.shared() {
        // SAFETY: the caller's promise.
        unsafe { shared::<BF16>(how, &cut, a, b, target, pool) }
    } else {
        // SAFETY: the caller's promise.
        unsafe { own::<BF16>(how, &cut, a, b, target, pool) }
    }
}

/// # Safety
/// As [`run`]; `c` is the whole result.
unsafe fn shared<const BF16: bool>(how: &Product, cut: &Cut, a: Mat, b: Mat, c: Target, pool: &Pool) {
    let [b_words, a_words] = cut.scratch();
    let mut packed = pool.scratch(b_words);
    let packed = Words(packed.as_mut_ptr().cast());
    let columns = cut.columns();
    // Panel after panel of a chunk, chunk after chunk.
    let place = move |chunk: usize, column: usize, steps: usize| chunk * cut.steps * columns + column * steps;
    let steps = |inner: &Range<usize>| inner.len().div_ceil(avx512::per_step::<BF16>());
    let per_chunk = cut.n.div_ceil(PANEL);
    each(how.parallel, per_chunk * cut.chunks, |job| {
        let (chunk, panel) = (job / per_chunk, job % per_chunk);
        let (inner, panel) = (cut.inner(chunk), panel * PANEL..((panel + 1) * PANEL).min(cut.n));
        // SAFETY: the panel has a place of its own in the packed words, which are long enough (`Cut::scratch`).
        unsafe { avx512::pack_b::<BF16>(&b, inner.clone(), panel.clone(), packed.at(place(chunk, panel.start, steps(&inner)))) };
    });
    each(how.parallel, cut.blocks() * cut.groups(), |job| {
        let (rows, group) = (cut.block(job / cut.groups()), cut.group(job % cut.groups()));
        let mut packed_a = pool.scratch(a_words);
        for chunk in 0..cut.chunks {
            let inner = cut.inner(chunk);
            // SAFETY: all of b is packed; this piece of c belongs to this job.
            unsafe {
                let b = packed.at(place(chunk, group.start, steps(&inner)));
                piece::<BF16>(&a, rows.clone(), inner, b, group.clone(), packed_a.as_mut_ptr().cast(), c, base(how, chunk == 0));
            }
        }
    });
}

/// # Safety
/// As [`shared`].
unsafe fn own<const BF16: bool>(how: &Product, cut: &Cut, a: Mat, b: Mat, c: Target, pool: &Pool) {
    let [sum_words, each_words] = cut.scratch();
    let mut sums = pool.scratch(sum_words);
    let partial = Target { c: sums.as_mut_ptr(), row: cut.n };
    let columns = cut.columns().min(GROUP);
    each(how.parallel, cut.parts * cut.groups(), |job| {
        let (part, group) = (job / cut.groups(), cut.group(job % cut.groups()));
        let mut words = pool.scratch(each_words);
        let (packed_b, packed_a) = words.split_at_mut(columns * cut.steps);
        let (packed_b, packed_a) = (packed_b.as_mut_ptr().cast::<u32>(), packed_a.as_mut_ptr().cast::<u32>());
        let chunks = cut.part(part);
        for chunk in chunks.clone() {
            let inner = cut.inner(chunk);
            let steps = inner.len().div_ceil(avx512::per_step::<BF16>());
            for panel in panels(group.clone()) {
                // SAFETY: the words hold a whole group.
                unsafe { avx512::pack_b::<BF16>(&b, inner.clone(), panel.clone(), packed_b.add((panel.start - group.start) * steps)) };
            }
            let (to, base) = match cut.parts {
                1 => (c, base(how, chunk == 0)),
                _ => {
                    // SAFETY: the sums of this part begin here.
                    let c = unsafe { partial.at(part * cut.m * cut.n) };
                    (Target { c, row: cut.n }, if chunk == chunks.start { Start::Zero } else { Start::Result })
                }
            };
            for block in 0..cut.blocks() {
                // SAFETY: these columns of c, or of this part's sums, belong to this job.
                unsafe { piece::<BF16>(&a, cut.block(block), inner.clone(), packed_b, group.clone(), packed_a, to, base) };
            }
        }
    });
    if cut.parts > 1 {
        let sums = &sums;
        each(how.parallel, cut.blocks(), |block| {
            let rows = cut.block(block);
            for row in rows {
                // SAFETY: this row of c belongs to this job.
                let to = unsafe { std::slice::from_raw_parts_mut(c.at(row * cut.n), cut.n) };
                let first = &sums[row * cut.n..][..cut.n];
                match (how.bias, how.accumulate) {
                    (_, true) => lanes::accumulate(first, to),
                    (Some(bias), false) => lanes::add_scaled(first, 1.0, bias, to),
                    (None, false) => to.copy_from_slice(first),
                }
                for part in 1..cut.parts {
                    lanes::accumulate(&sums[(part * cut.m + row) * cut.n..][..cut.n], to);
                }
            }
        });
    }
}

/// What a piece is added to.
#[derive(Clone, Copy)]
enum Start<'a> {
    Zero,
    Row(&'a [f32]),
    Result,
}

fn base<'a>(how: &Product<'a>, first: bool) -> Start<'a> {
    match how.bias {
        _ if !first || how.accumulate => Start::Result,
        Some(bias) => Start::Row(bias),
        None => Start::Zero,
    }
}

/// Packs `rows` of a and multiplies them with the packed `columns` of b.
///
/// # Safety
/// As [`run`]; `b` holds the panels of `columns`, `packed_a` has room for the rows, and nobody else uses this piece of c.
unsafe fn piece<const BF16: bool>(
    a: &Mat,
    rows: Range<usize>,
    inner: Range<usize>,
    b: *const u32,
    columns: Range<usize>,
    packed_a: *mut u32,
    c: Target,
    start: Start,
) {
    let steps = inner.len().div_ceil(avx512::per_step::<BF16>());
    // SAFETY: the caller's promise.
    let [a_row, a_step, a_block] = unsafe { avx512::pack_a::<BF16>(a, rows.clone(), inner, packed_a) };
    for panel in panels(columns.clone()) {
        let base = match start {
            Start::Zero => Base::Zero,
            Start::Row(row) => Base::Row(row[panel.start..].as_ptr()),
            Start::Result => Base::Result,
        };
        for (i, first) in rows.clone().step_by(ROWS).enumerate() {
            // SAFETY: block i of a and this panel of b are packed; the block of c is inside the piece.
            unsafe {
                let block = Block {
                    steps,
                    a: packed_a.add(i * a_block),
                    a_row,
                    a_step,
                    b: b.add((panel.start - columns.start) * steps),
                    c: c.c.add(first * c.row + panel.start),
                    c_row: c.row,
                    base,
                };
                avx512::block::<BF16>(ROWS.min(rows.end - first), panel.len(), &block);
            }
        }
    }
}
