//! Blocked products on AVX-512 with BF16, as jobs that each compute a block of the result over packed operands.
//!
//! b is packed once for all jobs, or prepacked; where few rows share it (or a result is small and its inner dimension long, as in a
//! weight's gradient), each job packs its own group just before it uses it. a is read in place, packed once for all jobs, or by each job.
//! Long inner dimensions are split into parts whose sums are added up in order (split-K). Every element is one sum in an order that only
//! the shapes decide.
//!
//! Files from the bottom up, as in BLIS: [`blocking`] has the sizes, [`element`] and [`pack`] pack, [`micro_kernel`] multiplies and applies
//! the [`epilogue`] of a micro-tile, [`macro_kernel`] loops over micro-tiles and [`prefetch`]es; the loops over blocks are here.

pub mod blocking;
mod element;
mod epilogue;
pub mod macro_kernel;
mod micro_kernel;
pub mod output;
pub mod pack;
pub mod prefetch;

use blocking::{Blocking, InnerBlocking, NR, panels, per_step};
use macro_kernel::ChunkEpilogue;
use output::{SharedOutput, SharedWords, for_each_job};
use pack::LeftRows;
use prefetch::Prefetch;

use super::matrix::{Mat, MatMut};
use super::product::Product;
use crate::buffer::Buffer;
use crate::{Pool, lanes};

/// Operand b of a product.
#[derive(Clone, Copy)]
pub enum OperandB<'a> {
    /// A matrix as it is in memory.
    Plain(Mat<'a>),
    /// Packed words, in the order of [`InnerBlocking::panel_offset`].
    Packed(&'a [f32]),
}

/// Bytes of scratch memory that a product takes in either rounding, at most.
pub fn scratch(m: usize, n: usize, k: usize, threads: usize) -> usize {
    if m * n * k == 0 {
        return 0;
    }
    [1, 2].map(|per_step| Blocking::new([m, n, k], per_step, false).scratch(false).bytes(threads)).into_iter().max().unwrap_or(0)
}

/// Further bytes of scratch memory for the sums of m rows of k elements.
pub fn row_sums_scratch(m: usize, k: usize) -> usize {
    if m * k == 0 {
        return 0;
    }
    [1, 2].map(|per_step| 4 * m * InnerBlocking::new(k, per_step).chunks).into_iter().max().unwrap_or(0)
}

/// Whether an inner dimension of `k` is one chunk of a product that rounds, so that each result is stored once.
pub fn sums_at_once(k: usize) -> bool {
    InnerBlocking::new(k.max(1), per_step::<true>()).chunks == 1
}

/// Packs b in the order in which the micro-kernels read it, chunk after chunk.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`].
pub unsafe fn pack<const BF16: bool>(b: Mat) -> Buffer {
    let inner = InnerBlocking::new(b.rows, per_step::<BF16>());
    let mut words = Buffer::new(inner.words(b.cols));
    let to = SharedWords(words.as_mut_ptr().cast());
    let per_chunk = b.cols.div_ceil(NR);
    for_each_job(true, per_chunk * inner.chunks, |job| {
        // SAFETY: the panel has a place of its own in the words.
        unsafe { pack_panel::<BF16>(&b, &inner, job / per_chunk, job % per_chunk, to) };
    });
    words
}

/// Packs one panel of a chunk.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; `to` holds all panels of b, and nobody else writes this one.
unsafe fn pack_panel<const BF16: bool>(b: &Mat, inner: &InnerBlocking, chunk: usize, panel: usize, to: SharedWords) {
    let columns = panel * NR..((panel + 1) * NR).min(b.cols);
    let offset = inner.panel_offset(b.cols, chunk, columns.start);
    // SAFETY: the caller's promise; `InnerBlocking::words` counts every panel of every chunk.
    unsafe { pack::pack_b::<BF16>(b, inner.range(chunk), columns, to.at(offset)) };
}

/// Runs a product whose dimensions are all above 0. With `row_sums` it also sums the rows of an a that is not row-major.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; `c` has as many rows as a and as many columns as b; packed words are those of a b with
/// a's inner dimension, in this rounding.
pub unsafe fn run<const BF16: bool>(product: &Product, a: Mat, b: OperandB, c: MatMut, row_sums: Option<&mut [f32]>, pool: &Pool) {
    let n = c.cols;
    let blocking = Blocking::new([a.rows, n, a.cols], per_step::<BF16>(), matches!(b, OperandB::Packed(_)));
    let inner = blocking.inner;
    assert!(c.is_f32() || BF16 && inner.chunks == 1, "an inner dimension of {} is not summed at once", a.cols);
    let c = SharedOutput::of(c);
    let in_place = pack::in_place::<BF16>(&a);
    let scratch = blocking.scratch(in_place);
    let mut packed = pool.scratch(scratch.a + scratch.b);
    let packed = SharedWords(packed.as_mut_ptr().cast());
    let mut sums = pool.scratch(scratch.sums);
    let partial = SharedOutput::new(sums.as_mut_ptr(), n);
    // Each chunk of a block is summed by the one job that packs it for the first group.
    let mut chunk_sums = pool.scratch(if row_sums.is_some() { inner.chunks * blocking.m } else { 0 });
    let sums_output = (!chunk_sums.is_empty()).then_some(SharedOutput::new(chunk_sums.as_mut_ptr(), 1));
    // SAFETY: there is a sum for each chunk of each row.
    let sums_at = |chunk, block| sums_output.map_or(std::ptr::null_mut(), |to| unsafe { to.at(blocking.row_sums_offset(chunk, block)) });

    // Operands that all jobs share.
    // SAFETY: `Blocking::scratch` counts a before b.
    let shared_b = SharedWords(unsafe { packed.at(scratch.a) });
    let (a_jobs, per_chunk) = (if scratch.a > 0 { inner.chunks * blocking.blocks } else { 0 }, n.div_ceil(NR));
    let b_jobs = if scratch.b > 0 { inner.chunks * per_chunk } else { 0 };
    for_each_job(product.parallel, a_jobs + b_jobs, |job| match (job.checked_sub(a_jobs), b) {
        (Some(job), OperandB::Plain(b)) => {
            // SAFETY: each job has a panel of its own.
            unsafe { pack_panel::<BF16>(&b, &inner, job / per_chunk, job % per_chunk, shared_b) }
        }
        _ => {
            let (chunk, block) = (job / blocking.blocks, job % blocking.blocks);
            let to = blocking.a_offset(chunk, block);
            // SAFETY: each job has a block of its own.
            unsafe { pack::pack_a::<BF16>(&a, blocking.block(block), inner.range(chunk), packed.at(to), sums_at(chunk, block)) };
        }
    });

    // Jobs that share b compute one block of rows each, others all of them.
    let packs_b = scratch.b_per_job > 0;
    let row_jobs = if packs_b { 1 } else { blocking.blocks };
    let jobs = blocking.parts * blocking.groups * row_jobs;
    for_each_job(product.parallel, jobs, |job| {
        let (part, group, first) = (job / row_jobs / blocking.groups, blocking.group(job / row_jobs % blocking.groups), job % row_jobs);
        let blocks = if packs_b { 0..blocking.blocks } else { first..first + 1 };
        let mut job_scratch = pool.scratch(scratch.b_per_job + scratch.a_per_job);
        let job_words = job_scratch.as_mut_ptr().cast::<u32>();
        let chunks = blocking.part(part);
        for chunk in chunks.clone() {
            let (range, steps) = (inner.range(chunk), inner.steps_of(chunk));
            let mut prefetch = match b {
                OperandB::Plain(b) if blocking.parts > 1 && blocking.groups == 1 && chunk + 1 < chunks.end => {
                    Prefetch::chunk(&a, &b, inner.range(chunk + 1))
                }
                _ if !packs_b && scratch.a == 0 && inner.chunks == 1 && first + 1 < blocking.blocks => {
                    // An a that is read in place is prefetched by the macro-kernel, in rows.
                    Prefetch::rows(&a, !in_place, product, c, blocking.block(first + 1))
                }
                _ if !product.prefetch.is_empty() => {
                    Prefetch::share(product.prefetch, job * chunks.len() + chunk - chunks.start, jobs * chunks.len())
                }
                _ => Prefetch::default(),
            };
            let b = match b {
                OperandB::Plain(b) if packs_b => {
                    for panel in panels(group.clone()) {
                        // SAFETY: the words of this job hold a whole group.
                        let to = unsafe { job_words.add((panel.start - group.start) * steps) };
                        // SAFETY: as above.
                        unsafe { pack::pack_b::<BF16>(&b, range.clone(), panel, to) };
                    }
                    job_words.cast_const()
                }
                // SAFETY: all of b is packed in this order.
                OperandB::Plain(_) => unsafe { shared_b.at(inner.panel_offset(n, chunk, group.start)) },
                OperandB::Packed(words) => words[inner.panel_offset(n, chunk, group.start)..].as_ptr().cast(),
            };
            let next_chunk = if packs_b || chunk + 1 == chunks.end {
                b
            } else {
                b.wrapping_add(inner.panel_offset(n, chunk + 1, group.start) - inner.panel_offset(n, chunk, group.start))
            };
            let (to, epilogue) = if blocking.parts == 1 {
                (c, ChunkEpilogue::of(product, chunk == 0, chunk + 1 == inner.chunks))
            } else {
                // SAFETY: the sums of this part begin here.
                let sums = unsafe { partial.at(part * blocking.m * n) };
                (SharedOutput::new(sums, n), ChunkEpilogue { accumulate: chunk > chunks.start, ..ChunkEpilogue::default() })
            };
            for block in blocks.clone() {
                let rows = blocking.block(block);
                // SAFETY: blocks that all jobs share are packed; the words of this job hold a block of a behind a group of b; this piece of
                // the result, or of the sums, belongs to this job.
                unsafe {
                    let left = if in_place {
                        LeftRows::in_place(&a, rows.start, range.start)
                    } else if scratch.a > 0 {
                        LeftRows::packed(&a, steps, packed.at(blocking.a_offset(chunk, block)))
                    } else {
                        let to = job_words.add(scratch.b_per_job);
                        let sums = if group.start == 0 { sums_at(chunk, block) } else { std::ptr::null_mut() };
                        pack::pack_a::<BF16>(&a, rows.clone(), range.clone(), to, sums);
                        LeftRows::packed(&a, steps, to)
                    };
                    macro_kernel::run::<BF16>(left, rows, steps, [b, next_chunk], group.clone(), to, &epilogue, &mut prefetch);
                }
            }
        }
    });
    if blocking.parts > 1 {
        let sums = &sums;
        for_each_job(product.parallel, blocking.blocks, |block| {
            for row in blocking.block(block) {
                // SAFETY: this row of c belongs to this job.
                let to = unsafe { std::slice::from_raw_parts_mut(c.at(row * n), n) };
                let first = &sums[row * n..][..n];
                match (product.bias, product.accumulate) {
                    (_, true) => lanes::accumulate(first, to),
                    (Some(bias), false) => lanes::add_scaled(first, 1.0, bias, to),
                    (None, false) => to.copy_from_slice(first),
                }
                for part in 1..blocking.parts {
                    lanes::accumulate(&sums[(part * blocking.m + row) * n..][..n], to);
                }
                product.epilogue.apply(row, n, to);
            }
        });
    }
    if let Some(row_sums) = row_sums {
        row_sums.copy_from_slice(&chunk_sums[..blocking.m]);
        chunk_sums.chunks(blocking.m).skip(1).for_each(|sums| lanes::accumulate(sums, row_sums));
    }
}
