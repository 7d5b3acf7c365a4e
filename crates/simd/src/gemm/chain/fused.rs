//! A fused chain on the blocked engine.
//!
//! Normalized rows, and hidden ones, are whole rows of words, as the products read them: a chunk of the inner dimension is a part of each.
//! Hidden elements are rounded by the epilogue that applies GELU, so that no more than a panel of them is in memory as floats.
//!
//! With many rows a job takes a block of them through the whole chain. With few, weights cost more than rows: each step is done for all
//! rows before the next, and a job has some of the columns.

use std::ops::Range;

use super::layers::{Chain, ChainNorm, ChainSizes, ChainWeight};
use super::norm;
use crate::Pool;
use crate::gemm::blocked::blocking::{Blocking, FEW_ROWS, InnerBlocking, MC, MR, NR, block, blocks, panels, per_step, row_words};
use crate::gemm::blocked::macro_kernel::{self, ChunkEpilogue};
use crate::gemm::blocked::output::{SharedOutput, SharedWords, for_each_job};
use crate::gemm::blocked::pack::{self, LeftRows};
use crate::gemm::blocked::prefetch::Prefetch;
use crate::gemm::blocked::sums_at_once;
use crate::gemm::epilogue::Epilogue;
use crate::gemm::matrix::{Mat, MatMut};
use crate::gemm::packed::Packed;
use crate::gemm::product::{PARALLEL_FROM, Product};

/// Bytes of a block's hidden words at most: a second-level cache.
const HIDDEN_BYTES: usize = 1 << 20;

/// Packed weights of a chain's layers.
#[derive(Clone, Copy)]
pub(super) struct FusedWeights<'a> {
    hidden: Option<&'a Packed>,
    last: &'a Packed,
}

impl<'a> FusedWeights<'a> {
    /// The weights, if all of them are packed.
    pub fn of(chain: &Chain<'a>) -> Option<FusedWeights<'a>> {
        let packed = |weight: ChainWeight<'a>| match weight {
            ChainWeight::Packed(packed) => {
                assert!(packed.rounding == chain.rounding, "a chain in {:?} with a weight in {:?}", chain.rounding, packed.rounding);
                Some(packed)
            }
            ChainWeight::Plain(_) => None,
        };
        let hidden = match chain.hidden {
            Some(layer) => Some(packed(layer.weight)?),
            None => None,
        };
        Some(FusedWeights { hidden, last: packed(chain.last.weight)? })
    }
}

/// Whether the chain has an intermediate result, and no small result of a long inner dimension, which is better split.
pub(super) fn is_worth_fusing<const BF16: bool>(sizes: &ChainSizes) -> bool {
    let &ChainSizes { rows, width, hidden, out, norm } = sizes;
    let steps = hidden.map_or([[out, width]; 2], |hidden| [[hidden, width], [out, hidden]]);
    let whole = |[n, k]: [usize; 2]| n * k > 0 && (rows > FEW_ROWS || blocking_of::<BF16>(rows, n, k).parts == 1);
    rows > 0 && (norm || hidden.is_some()) && steps.into_iter().all(whole)
}

/// Blocking of one of the chain's products.
fn blocking_of<const BF16: bool>(rows: usize, n: usize, k: usize) -> Blocking {
    Blocking::new([rows, n, k], per_step::<BF16>(), true)
}

/// Blocking of a chain in rows, and its words: those of a job, or with few rows those of all jobs.
struct ChainPlan {
    /// Whether there are few rows, so that jobs are some of the columns.
    few: bool,
    /// Blocks of rows.
    blocks: usize,
    /// Words from row to row of the operand.
    row: usize,
    /// Words from row to row of hidden elements.
    hidden_row: usize,
    /// Words of the operand's rows of a block; 0 where it is read in place.
    operand: usize,
    /// Words of the hidden rows of a block.
    hidden: usize,
    /// Floats of the sums that GELU rounds.
    sums: usize,
}

impl ChainPlan {
    fn new<const BF16: bool>(sizes: &ChainSizes, in_place: bool) -> ChainPlan {
        let words = |n: usize| row_words(n.div_ceil(per_step::<BF16>()));
        let (row, hidden_row) = (words(sizes.width), sizes.hidden.map_or(0, words));
        let most = HIDDEN_BYTES / (4 * hidden_row.max(1)) / MR * MR;
        let few = sizes.rows <= FEW_ROWS;
        let blocks = if few { 1 } else { blocks(sizes.rows, most.clamp(MR, MC)) };
        let rows = sizes.rows.div_ceil(MR).div_ceil(blocks) * MR;
        ChainPlan {
            few,
            blocks,
            row,
            hidden_row,
            operand: if in_place { 0 } else { rows * row },
            hidden: rows * hidden_row,
            sums: if BF16 && sizes.hidden.is_some() { rows.min(MC) * NR } else { 0 },
        }
    }

    /// Words of scratch memory of all jobs, and of one.
    fn scratch(&self) -> [usize; 2] {
        let words = self.operand + self.hidden;
        if self.few { [words, self.sums] } else { [0, words + self.sums] }
    }
}

/// Bytes of scratch memory of a fused chain.
pub(super) fn scratch<const BF16: bool>(sizes: &ChainSizes, threads: usize) -> usize {
    let [all, each] = ChainPlan::new::<BF16>(sizes, false).scratch();
    4 * (all + threads * each)
}

/// Runs the fused chain.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; the sizes are those of the operands, the result and the epilogue; weights are rounded
/// like this.
pub(super) unsafe fn run<const BF16: bool>(chain: &Chain, weights: FusedWeights, sizes: &ChainSizes, x: Mat, c: MatMut, pool: &Pool) {
    assert!(c.is_f32() || sums_at_once(weights.last.k), "an inner dimension of {} is not summed at once", weights.last.k);
    let plan = ChainPlan::new::<BF16>(sizes, chain.norm.is_none() && pack::in_place::<BF16>(&x));
    let c = SharedOutput::of(c);
    // SAFETY: the caller's promise.
    unsafe {
        match plan.few {
            true => by_columns::<BF16>(chain, weights, sizes, &plan, &x, c, pool),
            false => by_rows::<BF16>(chain, weights, sizes, &plan, &x, c, pool),
        }
    }
}

/// Takes blocks of rows through the whole chain, a block a job.
///
/// # Safety
/// As [`run`].
unsafe fn by_rows<const BF16: bool>(
    chain: &Chain,
    weights: FusedWeights,
    sizes: &ChainSizes,
    plan: &ChainPlan,
    x: &Mat,
    c: SharedOutput,
    pool: &Pool,
) {
    for_each_job(true, plan.blocks, |job| {
        let rows = block(sizes.rows, plan.blocks, job);
        let mut scratch = pool.scratch(plan.scratch()[1]);
        let (operand, rest) = scratch.split_at_mut(plan.operand);
        let (hidden, sums) = rest.split_at_mut(plan.hidden);
        let mut prefetch = match job + 1 < plan.blocks {
            true => Prefetch::rows(x, true, &chain.product(&chain.last, chain.epilogue), c, block(sizes.rows, plan.blocks, job + 1)),
            false => Prefetch::default(),
        };
        // SAFETY: the caller's promise; the block's rows of c belong to this job, and its words hold as many rows.
        unsafe {
            let mut left = if plan.operand == 0 {
                LeftRows::in_place(x, rows.start, 0)
            } else {
                pack_rows::<BF16>(chain.norm.as_ref(), x, rows.clone(), operand.as_mut_ptr().cast(), plan.row);
                LeftRows::row_major(operand.as_ptr().cast(), plan.row)
            };
            if let (Some(layer), Some(weight)) = (&chain.hidden, weights.hidden) {
                let to = HiddenOutput { words: hidden.as_mut_ptr(), row: plan.hidden_row, sums: sums.as_mut_ptr() };
                hidden_layer::<BF16>(&chain.product(layer, Epilogue::Gelu), left, rows.len(), weight, 0..weight.n, weights.last, to);
                left = LeftRows::row_major(hidden.as_ptr().cast(), plan.hidden_row);
            }
            last_layer::<BF16>(
                &chain.last_of(&rows, sizes.out),
                left,
                rows.len(),
                weights,
                0..sizes.out,
                c.skip_rows(rows.start),
                &mut prefetch,
            );
        }
    });
}

/// Does each step for all rows before the next, some of its columns a job.
///
/// # Safety
/// As [`run`].
unsafe fn by_columns<const BF16: bool>(
    chain: &Chain,
    weights: FusedWeights,
    sizes: &ChainSizes,
    plan: &ChainPlan,
    x: &Mat,
    c: SharedOutput,
    pool: &Pool,
) {
    let mut words = pool.scratch(plan.scratch()[0]);
    let (operand, hidden) = words.split_at_mut(plan.operand);
    let (operand, hidden) = (SharedWords(operand.as_mut_ptr().cast()), SharedWords(hidden.as_mut_ptr().cast()));
    let parallel = sizes.rows * sizes.width * sizes.hidden.unwrap_or(sizes.out) >= PARALLEL_FROM;
    if plan.operand > 0 {
        for_each_job(parallel, sizes.rows.div_ceil(MR), |job| {
            let rows = job * MR..((job + 1) * MR).min(sizes.rows);
            // SAFETY: the words hold all rows, and these are this job's.
            unsafe { pack_rows::<BF16>(chain.norm.as_ref(), x, rows.clone(), operand.at(rows.start * plan.row), plan.row) };
        });
    }
    // SAFETY: the words hold all rows.
    let packed =
        |words: SharedWords, row: usize, first: usize| unsafe { LeftRows { far: true, ..LeftRows::row_major(words.at(first * row), row) } };
    let operand = |first: usize| if plan.operand == 0 { LeftRows::in_place(x, first, 0) } else { packed(operand, plan.row, first) };
    if let (Some(layer), Some(weight)) = (&chain.hidden, weights.hidden) {
        let (product, blocking) = (chain.product(layer, Epilogue::Gelu), blocking_of::<BF16>(sizes.rows, weight.n, weight.k));
        for_each_job(parallel, blocking.groups * blocking.blocks, |job| {
            let (columns, rows) = (blocking.group(job / blocking.blocks), blocking.block(job % blocking.blocks));
            let mut sums = pool.scratch(plan.scratch()[1]);
            // SAFETY: the caller's promise; these columns of these rows are this job's.
            unsafe {
                let words = hidden.at(rows.start * plan.hidden_row).cast();
                let to = HiddenOutput { words, row: plan.hidden_row, sums: sums.as_mut_ptr() };
                hidden_layer::<BF16>(&product, operand(rows.start), rows.len(), weight, columns, weight, to);
            }
        });
    }
    let blocking = blocking_of::<BF16>(sizes.rows, sizes.out, weights.last.k);
    for_each_job(parallel, blocking.groups * blocking.blocks, |job| {
        let (columns, rows) = (blocking.group(job / blocking.blocks), blocking.block(job % blocking.blocks));
        let left = if weights.hidden.is_some() { packed(hidden, plan.hidden_row, rows.start) } else { operand(rows.start) };
        // SAFETY: as above.
        unsafe {
            let (product, to) = (chain.last_of(&rows, sizes.out), c.skip_rows(rows.start));
            last_layer::<BF16>(&product, left, rows.len(), weights, columns, to, &mut Prefetch::default());
        }
    });
}

impl Chain<'_> {
    /// The last product for some of the rows, each of so many elements.
    fn last_of(&self, rows: &Range<usize>, out: usize) -> Product<'_> {
        let epilogue = match self.epilogue {
            Epilogue::Add(x) => Epilogue::Add(&x[rows.start * out..]),
            Epilogue::GeluDerivative(x) => Epilogue::GeluDerivative(&x[rows.start * out..]),
            Epilogue::Residual { x, scale } => Epilogue::Residual { x: &x[rows.start * out..], scale: &scale[rows.start..] },
            epilogue @ (Epilogue::Identity | Epilogue::Gelu) => epilogue,
        };
        self.product(&self.last, epilogue)
    }
}

/// Packs rows of x as words, normalized where there is a norm, `row` from one to the next.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; rows of x are as long as the norm's; there are at most [`MC`], and `to` has `row`
/// words for each.
unsafe fn pack_rows<const BF16: bool>(norm: Option<&ChainNorm>, x: &Mat, rows: Range<usize>, to: *mut u32, row: usize) {
    // SAFETY: the caller's promise.
    unsafe {
        match norm {
            Some(norm) => normalize::<BF16>(norm, x, rows, to, row),
            None => pack::pack_a::<BF16>(x, rows, 0..x.cols, to, std::ptr::null_mut()),
        }
    }
}

/// Normalizes rows of x to words, `row` from one to the next.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; rows of x are as long as the norm's; `to` has `row` words for each.
unsafe fn normalize<const BF16: bool>(norm: &ChainNorm, x: &Mat, rows: Range<usize>, to: *mut u32, row: usize) {
    let last = rows.len() - 1;
    for first in (0..rows.len()).step_by(norm::ROWS_AT_ONCE) {
        // Where there are no more rows, the last once more.
        let at: [usize; norm::ROWS_AT_ONCE] = std::array::from_fn(|i| (first + i).min(last));
        let from = at.map(|i| x.f32()[(rows.start + i) * x.row_stride..][..x.cols].as_ptr());
        // SAFETY: the caller's promise.
        unsafe { norm::rows::<BF16>(norm, from, at.map(|i| to.add(i * row))) };
    }
}

/// Destination of hidden elements: words, their distance from row to row, and a buffer for the sums of a panel.
#[derive(Clone, Copy)]
struct HiddenOutput {
    words: *mut f32,
    row: usize,
    sums: *mut f32,
}

/// Product of the hidden layer with GELU, for some rows and columns; `follow` is the weight that is read next.
///
/// # Safety
/// As [`run`]; `left` has so many rows, and `to` has room for them; nobody else uses these columns of it.
unsafe fn hidden_layer<const BF16: bool>(
    product: &Product,
    left: LeftRows,
    rows: usize,
    weight: &Packed,
    columns: Range<usize>,
    follow: &Packed,
    to: HiddenOutput,
) {
    let inner = InnerBlocking::new(weight.k, per_step::<BF16>());
    let offset = |chunk, column| weight.words[inner.panel_offset(weight.n, chunk, column)..].as_ptr().cast::<u32>();
    for panel in panels(columns.clone()) {
        for chunk in 0..inner.chunks {
            // Words that are used next: the panel's next chunk, the next panel, or the weight that follows.
            let next = match () {
                _ if chunk + 1 < inner.chunks => offset(chunk + 1, panel.start),
                _ if panel.end < columns.end => offset(0, panel.end),
                _ => follow.words.as_ptr().cast(),
            };
            let mut epilogue = ChunkEpilogue::of(product, chunk == 0, chunk + 1 == inner.chunks);
            let sums = if BF16 {
                epilogue.words = Some((SharedWords(to.words.cast()), to.row));
                // Sums of several chunks are kept for all rows, those of one for eight.
                let tile_stride = if inner.chunks > 1 { MR * NR } else { 0 };
                SharedOutput { tile_stride, first_column: panel.start, ..SharedOutput::new(to.sums, NR) }
            } else {
                SharedOutput::new(to.words, to.row)
            };
            let b = [offset(chunk, panel.start), next];
            // SAFETY: the caller's promise.
            unsafe {
                let a = LeftRows { far: left.far && panel.start == columns.start, ..left.skip(chunk * inner.steps) };
                macro_kernel::run::<BF16>(a, 0..rows, inner.steps_of(chunk), b, panel.clone(), sums, &epilogue, &mut Prefetch::default());
            }
        }
    }
}

/// Product of the last layer with the epilogue, for some rows and columns.
///
/// # Safety
/// As [`run`]; `left` has so many rows, and `to` begins with the first of as many of the result, of which nobody else uses these columns.
unsafe fn last_layer<const BF16: bool>(
    product: &Product,
    left: LeftRows,
    rows: usize,
    weights: FusedWeights,
    columns: Range<usize>,
    to: SharedOutput,
    prefetch: &mut Prefetch,
) {
    let weight = weights.last;
    let inner = InnerBlocking::new(weight.k, per_step::<BF16>());
    let offset = |chunk| weight.words[inner.panel_offset(weight.n, chunk, columns.start)..].as_ptr().cast();
    for chunk in 0..inner.chunks {
        // Behind the last chunk the next job begins.
        let next = if chunk + 1 < inner.chunks { offset(chunk + 1) } else { weights.hidden.unwrap_or(weight).words.as_ptr().cast() };
        let epilogue = ChunkEpilogue::of(product, chunk == 0, chunk + 1 == inner.chunks);
        let (steps, b, columns) = (inner.steps_of(chunk), [offset(chunk), next], columns.clone());
        // SAFETY: the caller's promise.
        unsafe { macro_kernel::run::<BF16>(left.skip(chunk * inner.steps), 0..rows, steps, b, columns, to, &epilogue, prefetch) };
    }
}
