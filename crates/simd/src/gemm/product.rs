//! A product as jobs, each computing a part of the result over packed operands.
//!
//! b is packed once for all jobs, or given so; where few rows share it (or a result is small and its inner dimension long, as in a weight's
//! gradient), each job packs its own part just before it uses it. a is read where it is, packed once for all, or by each job. Long
//! inner dimensions are cut into parts whose sums are added up in order. Every element is one sum in an order that only the shapes decide.

use std::ops::Range;

use rayon::prelude::*;

use super::avx512::{self, Base, Block, LANES, ROWS, VECTORS};
use super::cut::{Cut, Inner, PANEL, panels};
use super::ends::Then;
use super::pack::{self, Rows};
use super::{Elements, ElementsMut, Epilogue, Mat, MatMut, Product};
use crate::buffer::Buffer;
use crate::{Pool, lanes};

/// The second operand.
#[derive(Clone, Copy)]
pub(super) enum Right<'a> {
    Plain(Mat<'a>),
    /// Words in the order of [`Inner::place`].
    Packed(&'a [f32]),
}

/// Bytes of scratch memory a product takes, in either rounding.
pub(super) fn scratch(m: usize, n: usize, k: usize, threads: usize) -> usize {
    if m * n * k == 0 {
        return 0;
    }
    [1, 2].map(|per_step| Cut::new([m, n, k], per_step, false).scratch(false).bytes(threads)).into_iter().max().unwrap_or(0)
}

/// Bytes of scratch memory that sums of m rows of k elements take besides.
pub(super) fn row_sums_scratch(m: usize, k: usize) -> usize {
    if m * k == 0 {
        return 0;
    }
    [1, 2].map(|per_step| 4 * m * Inner::new(k, per_step).chunks).into_iter().max().unwrap_or(0)
}

/// The result, written in pieces by several threads, or a place for a panel of it.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub c: *mut f32,
    /// Distances of rows, and of blocks of eight rows; 0 where each block takes the place of the one before.
    pub row: usize,
    pub eight: usize,
    /// The column that `c` begins with.
    pub first: usize,
    /// Whether it is bf16.
    pub pairs: bool,
}

impl Target {
    /// Whole rows.
    pub fn new(c: *mut f32, row: usize) -> Target {
        Target { c, row, eight: ROWS * row, first: 0, pairs: false }
    }

    /// Whole rows of a matrix.
    pub fn of(c: MatMut) -> Target {
        let n = c.cols;
        match c.data {
            ElementsMut::F32(data) => Target::new(data[..c.rows * n].as_mut_ptr(), n),
            ElementsMut::Pairs(words) => Target { pairs: true, ..Target::new(words[..c.rows * n / 2].as_mut_ptr().cast(), n) },
        }
    }

    /// From this row on.
    ///
    /// # Safety
    /// The result reaches that far.
    pub unsafe fn from(self, row: usize) -> Target {
        // SAFETY: the caller's promise.
        Target { c: unsafe { self.at(row * self.row) }, ..self }
    }

    /// # Safety
    /// The result reaches that far.
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's promise.
        unsafe { if self.pairs { self.c.cast::<u16>().add(offset).cast() } else { self.c.add(offset) } }
    }
}

// SAFETY: every job writes elements of its own.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

/// Packed words, written in panels and blocks by several threads.
#[derive(Clone, Copy)]
pub(super) struct Words(pub *mut u32);

impl Words {
    /// # Safety
    /// The words reach that far.
    pub unsafe fn at(self, offset: usize) -> *mut u32 {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }
}

// SAFETY: every thread writes panels and blocks of its own.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

/// Runs jobs one after the other, or over the threads.
pub(super) fn each(parallel: bool, jobs: usize, job: impl Fn(usize) + Sync + Send) {
    if parallel && jobs > 1 { (0..jobs).into_par_iter().with_max_len(1).for_each(job) } else { (0..jobs).for_each(job) }
}

/// b as the kernels read it, chunk after chunk.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`].
pub(super) unsafe fn pack<const BF16: bool>(b: Mat) -> Buffer {
    let inner = Inner::new(b.rows, avx512::per_step::<BF16>());
    let mut words = Buffer::new(inner.words(b.cols));
    let to = Words(words.as_mut_ptr().cast());
    let per_chunk = b.cols.div_ceil(PANEL);
    each(true, per_chunk * inner.chunks, |job| {
        // SAFETY: the panel has a place of its own in the words.
        unsafe { pack_panel::<BF16>(&b, &inner, job / per_chunk, job % per_chunk, to) };
    });
    words
}

/// # Safety
/// `to` holds all panels of b, and nobody else writes this one.
unsafe fn pack_panel<const BF16: bool>(b: &Mat, inner: &Inner, chunk: usize, panel: usize, to: Words) {
    let columns = panel * PANEL..((panel + 1) * PANEL).min(b.cols);
    let place = inner.place(b.cols, chunk, columns.start);
    // SAFETY: the caller's promise; `Inner::words` counts every panel of every chunk.
    unsafe { pack::pack_b::<BF16>(b, inner.range(chunk), columns, to.at(place)) };
}

/// The product; all dimensions above 0. With `row_sums` also the sums of a's rows, whose neighbors must lie side by side in memory.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; `c` has as many rows as a and as many columns as b; packed words are those of a b with a's
/// inner dimension, in this rounding.
pub(super) unsafe fn run<const BF16: bool>(how: &Product, a: Mat, b: Right, c: MatMut, row_sums: Option<&mut [f32]>, pool: &Pool) {
    let n = c.cols;
    let cut = Cut::new([a.rows, n, a.cols], avx512::per_step::<BF16>(), matches!(b, Right::Packed(_)));
    let inner = cut.inner;
    assert!(c.is_f32() || BF16 && inner.chunks == 1, "an inner dimension of {} is not summed at once", a.cols);
    let c = Target::of(c);
    let in_place = pack::in_place::<BF16>(&a);
    let need = cut.scratch(in_place);
    let mut packed = pool.scratch(need.a + need.b);
    let packed = Words(packed.as_mut_ptr().cast());
    let mut sums = pool.scratch(need.sums);
    let partial = Target::new(sums.as_mut_ptr(), n);
    // Each chunk of a block is summed by the one job that packs it for the first group.
    let mut chunk_sums = pool.scratch(if row_sums.is_some() { inner.chunks * cut.m } else { 0 });
    let sums_to = (!chunk_sums.is_empty()).then_some(Target::new(chunk_sums.as_mut_ptr(), 1));
    // SAFETY: there is a sum for each chunk of each row.
    let sums_at = |chunk, block| sums_to.map_or(std::ptr::null_mut(), |to| unsafe { to.at(cut.row_sums_place(chunk, block)) });

    // What all jobs share.
    // SAFETY: `Cut::scratch` counts a before b.
    let shared_b = Words(unsafe { packed.at(need.a) });
    let (a_jobs, per_chunk) = (if need.a > 0 { inner.chunks * cut.blocks } else { 0 }, n.div_ceil(PANEL));
    let b_jobs = if need.b > 0 { inner.chunks * per_chunk } else { 0 };
    each(how.parallel, a_jobs + b_jobs, |job| match (job.checked_sub(a_jobs), b) {
        (Some(job), Right::Plain(b)) => {
            // SAFETY: each job has a panel of its own.
            unsafe { pack_panel::<BF16>(&b, &inner, job / per_chunk, job % per_chunk, shared_b) }
        }
        _ => {
            let (chunk, block) = (job / cut.blocks, job % cut.blocks);
            let to = cut.a_place(chunk, block);
            // SAFETY: each job has a block of its own.
            unsafe { pack::pack_a::<BF16>(&a, cut.block(block), inner.range(chunk), packed.at(to), sums_at(chunk, block)) };
        }
    });

    // Jobs that share b compute one block of rows each, others all of them.
    let own_b = need.each_b > 0;
    let row_jobs = if own_b { 1 } else { cut.blocks };
    let jobs = cut.parts * cut.groups * row_jobs;
    each(how.parallel, jobs, |job| {
        let (part, group, first) = (job / row_jobs / cut.groups, cut.group(job / row_jobs % cut.groups), job % row_jobs);
        let blocks = if own_b { 0..cut.blocks } else { first..first + 1 };
        let mut own = pool.scratch(need.each_b + need.each_a);
        let own_words = own.as_mut_ptr().cast::<u32>();
        let chunks = cut.part(part);
        for chunk in chunks.clone() {
            let (range, steps) = (inner.range(chunk), inner.steps_of(chunk));
            let mut later = match b {
                Right::Plain(b) if cut.parts > 1 && cut.groups == 1 && chunk + 1 < chunks.end => {
                    Later::chunk(&a, &b, inner.range(chunk + 1))
                }
                _ if !own_b && need.a == 0 && inner.chunks == 1 && first + 1 < cut.blocks => {
                    // What is read where it is, is asked for by rows.
                    Later::rows(&a, !in_place, how, c, cut.block(first + 1))
                }
                _ if !how.ahead.is_empty() => Later::share(how.ahead, job * chunks.len() + chunk - chunks.start, jobs * chunks.len()),
                _ => Later::default(),
            };
            let b = match b {
                Right::Plain(b) if own_b => {
                    for panel in panels(group.clone()) {
                        // SAFETY: the words of this job hold a whole group.
                        let to = unsafe { own_words.add((panel.start - group.start) * steps) };
                        // SAFETY: as above.
                        unsafe { pack::pack_b::<BF16>(&b, range.clone(), panel, to) };
                    }
                    own_words.cast_const()
                }
                // SAFETY: all of b is packed in this order.
                Right::Plain(_) => unsafe { shared_b.at(inner.place(n, chunk, group.start)) },
                Right::Packed(words) => words[inner.place(n, chunk, group.start)..].as_ptr().cast(),
            };
            let next_chunk = if own_b || chunk + 1 == chunks.end {
                b
            } else {
                b.wrapping_add(inner.place(n, chunk + 1, group.start) - inner.place(n, chunk, group.start))
            };
            let (to, ends) = if cut.parts == 1 {
                (c, Ends::of(how, chunk == 0, chunk + 1 == inner.chunks))
            } else {
                // SAFETY: the sums of this part begin here.
                let sums = unsafe { partial.at(part * cut.m * n) };
                (Target::new(sums, n), Ends { result: chunk > chunks.start, ..Ends::default() })
            };
            for block in blocks.clone() {
                let rows = cut.block(block);
                // SAFETY: blocks that all jobs share are packed; the words of this job hold a block behind a group of b; this piece of the
                // result, or of the sums, belongs to this job.
                unsafe {
                    let left = if in_place {
                        Rows::in_place(&a, rows.start, range.start)
                    } else if need.a > 0 {
                        Rows::packed(&a, steps, packed.at(cut.a_place(chunk, block)))
                    } else {
                        let to = own_words.add(need.each_b);
                        let sums = if group.start == 0 { sums_at(chunk, block) } else { std::ptr::null_mut() };
                        pack::pack_a::<BF16>(&a, rows.clone(), range.clone(), to, sums);
                        Rows::packed(&a, steps, to)
                    };
                    multiply::<BF16>(left, rows, steps, [b, next_chunk], group.clone(), to, &ends, &mut later);
                }
            }
        }
    });
    if cut.parts > 1 {
        let sums = &sums;
        each(how.parallel, cut.blocks, |block| {
            for row in cut.block(block) {
                // SAFETY: this row of c belongs to this job.
                let to = unsafe { std::slice::from_raw_parts_mut(c.at(row * n), n) };
                let first = &sums[row * n..][..n];
                match (how.bias, how.accumulate) {
                    (_, true) => lanes::accumulate(first, to),
                    (Some(bias), false) => lanes::add_scaled(first, 1.0, bias, to),
                    (None, false) => to.copy_from_slice(first),
                }
                for part in 1..cut.parts {
                    lanes::accumulate(&sums[(part * cut.m + row) * n..][..n], to);
                }
                how.finish(row, n, to);
            }
        });
    }
    if let Some(row_sums) = row_sums {
        row_sums.copy_from_slice(&chunk_sums[..cut.m]);
        chunk_sums.chunks(cut.m).skip(1).for_each(|sums| lanes::accumulate(sums, row_sums));
    }
}

/// What the sums of a chunk are added to, and what follows.
#[derive(Clone, Copy, Default)]
pub(super) struct Ends<'a> {
    pub row: Option<&'a [f32]>,
    /// A matrix of the result's shape.
    pub matrix: Option<&'a [f32]>,
    /// What the result holds.
    pub result: bool,
    /// What is done to complete elements.
    pub then: Epilogue<'a>,
    /// Where GELU's words go, those of a row so far apart; else they stay where the sums are.
    pub words: Option<(Words, usize)>,
}

impl<'a> Ends<'a> {
    pub fn of(how: &Product<'a>, first: bool, last: bool) -> Ends<'a> {
        let result = !first || how.accumulate;
        Ends {
            row: how.bias.filter(|_| !result),
            matrix: match how.after {
                Epilogue::Add(matrix) if first => Some(matrix),
                _ => None,
            },
            result,
            then: if last { how.after } else { Epilogue::Identity },
            words: None,
        }
    }

    /// The same for the block that begins with this row and column, at this offset of the result.
    ///
    /// # Safety
    /// Where there are words, they hold the block.
    unsafe fn then(&self, row: usize, column: usize, at: usize) -> Then {
        match (self.then, self.words) {
            (Epilogue::Identity | Epilogue::Add(_), _) => Then::Nothing,
            (Epilogue::Gelu, None) => Then::Gelu,
            // SAFETY: the caller's promise.
            (Epilogue::Gelu, Some((words, distance))) => unsafe {
                Then::GeluTo { words: words.at(row * distance + column / 2), row: distance }
            },
            (Epilogue::GeluDerivative(x), _) => Then::Slope { x: x[at..].as_ptr() },
            (Epilogue::Residual { x, scale }, _) => Then::Residual { x: x[at..].as_ptr(), scale: scale[row..].as_ptr() },
        }
    }
}

/// Memory that is used next, asked for while this is multiplied: what uses it waits for the nearer caches alone.
pub(super) struct Later {
    /// Where each piece begins, and how many words it has: addresses alone, nothing is read there.
    pieces: [(*const u32, usize); 3],
    /// Instead of b's next panel, which is near.
    alone: bool,
}

impl Default for Later {
    fn default() -> Later {
        Later::of([NOTHING; 3])
    }
}

/// No memory.
const NOTHING: (*const u32, usize) = (std::ptr::null(), 0);

impl Later {
    fn of(pieces: [(*const u32, usize); 3]) -> Later {
        Later { pieces, alone: false }
    }

    /// A chunk of a row-major b, and of an a that is the transpose of such a matrix.
    fn chunk(a: &Mat, b: &Mat, inner: Range<usize>) -> Later {
        Later::of([lines(&a.t(), inner.clone()), lines(b, inner), NOTHING])
    }

    /// Rows that the next job probably takes: of a row-major a where they are `packed`, of what is added to them, and of the result.
    pub fn rows(a: &Mat, packed: bool, how: &Product, c: Target, rows: Range<usize>) -> Later {
        let a = if packed { lines(a, rows.clone()) } else { NOTHING };
        let range = rows.start * c.row..rows.end * c.row;
        let added = match how.after {
            Epilogue::Add(x) | Epilogue::Residual { x, .. } | Epilogue::GeluDerivative(x) => {
                (x[range.clone()].as_ptr().cast(), range.len())
            }
            Epilogue::Identity | Epilogue::Gelu => NOTHING,
        };
        let added = if added.0 == a.0 { NOTHING } else { added };
        let c = match c.pairs {
            true => (c.c.cast::<u16>().wrapping_add(range.start).cast_const().cast(), range.len() / 2),
            false => (c.c.wrapping_add(range.start).cast_const().cast(), range.len()),
        };
        Later::of([a, added, c])
    }

    /// Part i of n of what somebody wants after the product. Few rows have no time for more: the next panel is not asked for.
    fn share(all: &[f32], i: usize, n: usize) -> Later {
        let share = &all[i * all.len() / n..(i + 1) * all.len() / n];
        Later { pieces: [(share.as_ptr().cast(), share.len()), NOTHING, NOTHING], alone: true }
    }

    /// Where the next so many words begin.
    fn take(&mut self, words: usize) -> Option<*const u32> {
        let (from, left) = self.pieces.iter_mut().find(|(_, left)| *left > 0)?;
        let piece = *from;
        (*from, *left) = (from.wrapping_add(words), left.saturating_sub(words));
        Some(piece)
    }
}

/// Rows of a matrix that lies in one piece; nothing of another.
fn lines(mat: &Mat, rows: Range<usize>) -> (*const u32, usize) {
    let (first, floats) = (rows.start * mat.cols, rows.len() * mat.cols);
    match mat.data {
        _ if mat.col_stride != 1 || mat.row_stride != mat.cols => (std::ptr::null(), 0),
        Elements::F32(data) => (data[first..].as_ptr().cast(), floats),
        Elements::Pairs(words) => (words[first / 2..].as_ptr(), floats / 2),
    }
}

/// Multiplies rows of a with the packed `columns` of b over so many steps; `follow` is what is used behind them, `later` what is packed then.
///
/// # Safety
/// As [`run`]; `b` holds the panels of `columns`, `a` the rows, and nobody else uses this piece of c or of the words.
pub(super) unsafe fn multiply<const BF16: bool>(
    a: Rows,
    rows: Range<usize>,
    steps: usize,
    [b, follow]: [*const u32; 2],
    columns: Range<usize>,
    c: Target,
    ends: &Ends,
    later: &mut Later,
) {
    for panel in panels(columns.clone()) {
        let row = ends.row.map_or(std::ptr::null(), |row| row[panel.start..].as_ptr());
        let here = b.wrapping_add((panel.start - columns.start) * steps);
        let next = if panel.end < columns.end { b.wrapping_add((panel.end - columns.start) * steps) } else { follow };
        for (i, first) in rows.clone().step_by(ROWS).enumerate() {
            if a.far && panel.start == columns.start && first + ROWS < rows.end {
                // Later panels find them in the cache.
                a.fetch(i + 1, steps);
            }
            // SAFETY: block i of a and this panel of b are packed; the block of c is inside the piece.
            unsafe {
                let to = c.at(first / ROWS * c.eight + panel.start - c.first);
                let block = match (ends.matrix, ends.result) {
                    (Some(matrix), _) => matrix[first * c.row + panel.start..].as_ptr(),
                    (None, true) => to,
                    (None, false) => std::ptr::null(),
                };
                let block = Block {
                    steps,
                    a: a.at.add(i * a.eight),
                    a_row: a.row,
                    a_step: a.step,
                    b: here,
                    c: to,
                    c_row: c.row,
                    pairs: c.pairs,
                    base: Base { row, block },
                    then: ends.then(first, panel.start, first * c.row + panel.start),
                    // A panel is as many vectors of words a step as blocks bring.
                    ahead: match i < VECTORS && !later.alone {
                        true => next.wrapping_add(i * steps * LANES),
                        false => later.take(steps * LANES).unwrap_or(here),
                    },
                };
                avx512::block::<BF16>(ROWS.min(rows.end - first), panel.len(), &block);
            }
        }
    }
}
