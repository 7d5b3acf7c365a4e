//! A chain with the kernels of our own.
//!
//! Normalized rows, and hidden ones, lie as the products read them: whole rows of words, so that a chunk of the inner dimension is a part of each. Hidden
//! elements are rounded as GELU gives them, and never are floats in memory beyond a panel's.
//!
//! With many rows a job takes a block of them from one end to the other. With few, weights cost more than rows: each step is done for all rows
//! before the next, and a job has some of the columns.

use std::ops::Range;

use super::super::avx512::{ROWS, per_step};
use super::super::cut::{BLOCK_ROWS, Cut, FEW_ROWS, Inner, PANEL, block, blocks, panels};
use super::super::pack::{self, Rows, row_words};
use super::super::product::{Ends, Later, Target, Words, each, multiply};
use super::super::{Epilogue, Mat, MatMut, PARALLEL_FROM, Packed, Product};
use super::{Chain, Norm, Sizes, Weight, norm};
use crate::Pool;

/// Bytes of a block's hidden words at most: a second-level cache.
const HIDDEN_BYTES: usize = 1 << 20;

/// The layers' weights.
#[derive(Clone, Copy)]
pub(super) struct Weights<'a> {
    hidden: Option<&'a Packed>,
    last: &'a Packed,
}

impl<'a> Weights<'a> {
    /// If all of them are packed.
    pub fn of(chain: &Chain<'a>) -> Option<Weights<'a>> {
        let packed = |weight: Weight<'a>| match weight {
            Weight::Packed(packed) => {
                assert!(packed.rounding == chain.rounding, "a chain in {:?} with a weight in {:?}", chain.rounding, packed.rounding);
                Some(packed)
            }
            Weight::Plain(_) => None,
        };
        let hidden = match chain.hidden {
            Some(layer) => Some(packed(layer.weight)?),
            None => None,
        };
        Some(Weights { hidden, last: packed(chain.last.weight)? })
    }
}

/// Whether there is anything between two steps, and no long sum of a small result that is better cut into parts.
pub(super) fn is_worth_it<const BF16: bool>(sizes: &Sizes) -> bool {
    let &Sizes { rows, width, hidden, out, norm } = sizes;
    let steps = hidden.map_or([[out, width]; 2], |hidden| [[hidden, width], [out, hidden]]);
    let whole = |[n, k]: [usize; 2]| n * k > 0 && (rows > FEW_ROWS || cut::<BF16>(rows, n, k).parts == 1);
    rows > 0 && (norm || hidden.is_some()) && steps.into_iter().all(whole)
}

fn cut<const BF16: bool>(rows: usize, n: usize, k: usize) -> Cut {
    Cut::new([rows, n, k], per_step::<BF16>(), true)
}

/// How many rows are cut, and where words are: a job's, or with few rows those of all.
struct Plan {
    few: bool,
    blocks: usize,
    /// Words from row to row: of the operand, and of hidden elements.
    row: usize,
    hidden_row: usize,
    /// Words of all rows of a block: of the operand, unless it is read where it is; of hidden elements.
    operand: usize,
    hidden: usize,
    /// Floats of sums that GELU rounds.
    sums: usize,
}

impl Plan {
    fn new<const BF16: bool>(sizes: &Sizes, in_place: bool) -> Plan {
        let words = |n: usize| row_words(n.div_ceil(per_step::<BF16>()));
        let (row, hidden_row) = (words(sizes.width), sizes.hidden.map_or(0, words));
        let most = HIDDEN_BYTES / (4 * hidden_row.max(1)) / ROWS * ROWS;
        let few = sizes.rows <= FEW_ROWS;
        let blocks = if few { 1 } else { blocks(sizes.rows, most.clamp(ROWS, BLOCK_ROWS)) };
        let rows = sizes.rows.div_ceil(ROWS).div_ceil(blocks) * ROWS;
        Plan {
            few,
            blocks,
            row,
            hidden_row,
            operand: if in_place { 0 } else { rows * row },
            hidden: rows * hidden_row,
            sums: if BF16 && sizes.hidden.is_some() { rows.min(BLOCK_ROWS) * PANEL } else { 0 },
        }
    }

    /// Words of all jobs, and of one.
    fn scratch(&self) -> [usize; 2] {
        let words = self.operand + self.hidden;
        if self.few { [words, self.sums] } else { [0, words + self.sums] }
    }
}

/// Bytes of scratch memory.
pub(super) fn scratch<const BF16: bool>(sizes: &Sizes, threads: usize) -> usize {
    let [all, each] = Plan::new::<BF16>(sizes, false).scratch();
    4 * (all + threads * each)
}

/// Does the chain where that is worth it; the answer is whether it is.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; the sizes are those of the operands, the result and what follows; weights are rounded like this.
pub(super) unsafe fn run<const BF16: bool>(chain: &Chain, weights: Weights, sizes: &Sizes, x: Mat, c: MatMut, pool: &Pool) {
    assert!(c.is_f32() || super::super::writes_bf16x2(weights.last.k), "an inner dimension of {} is not summed at once", weights.last.k);
    let plan = Plan::new::<BF16>(sizes, chain.norm.is_none() && pack::in_place::<BF16>(&x));
    let c = Target::of(c);
    // SAFETY: the caller's promise.
    unsafe {
        match plan.few {
            true => by_columns::<BF16>(chain, weights, sizes, &plan, &x, c, pool),
            false => by_rows::<BF16>(chain, weights, sizes, &plan, &x, c, pool),
        }
    }
}

/// # Safety
/// As [`run`].
unsafe fn by_rows<const BF16: bool>(chain: &Chain, weights: Weights, sizes: &Sizes, plan: &Plan, x: &Mat, c: Target, pool: &Pool) {
    each(true, plan.blocks, |job| {
        let rows = block(sizes.rows, plan.blocks, job);
        let mut own = pool.scratch(plan.scratch()[1]);
        let (operand, rest) = own.split_at_mut(plan.operand);
        let (hidden, sums) = rest.split_at_mut(plan.hidden);
        let mut later = match job + 1 < plan.blocks {
            true => Later::rows(x, true, &chain.product(&chain.last, chain.after), c, block(sizes.rows, plan.blocks, job + 1)),
            false => Later::default(),
        };
        // SAFETY: the caller's promise; the block's rows of c belong to this job, and its words hold as many rows.
        unsafe {
            let mut left = if plan.operand == 0 {
                Rows::in_place(x, rows.start, 0)
            } else {
                take::<BF16>(chain.norm.as_ref(), x, rows.clone(), operand.as_mut_ptr().cast(), plan.row);
                Rows::along(operand.as_ptr().cast(), plan.row)
            };
            if let (Some(layer), Some(weight)) = (&chain.hidden, weights.hidden) {
                let to = Hidden { words: hidden.as_mut_ptr(), row: plan.hidden_row, sums: sums.as_mut_ptr() };
                hidden_layer::<BF16>(&chain.product(layer, Epilogue::Gelu), left, rows.len(), weight, 0..weight.n, weights.last, to);
                left = Rows::along(hidden.as_ptr().cast(), plan.hidden_row);
            }
            last_layer::<BF16>(&chain.last_of(&rows, sizes.out), left, rows.len(), weights, 0..sizes.out, c.from(rows.start), &mut later);
        }
    });
}

/// # Safety
/// As [`run`].
unsafe fn by_columns<const BF16: bool>(chain: &Chain, weights: Weights, sizes: &Sizes, plan: &Plan, x: &Mat, c: Target, pool: &Pool) {
    let mut words = pool.scratch(plan.scratch()[0]);
    let (operand, hidden) = words.split_at_mut(plan.operand);
    let (operand, hidden) = (Words(operand.as_mut_ptr().cast()), Words(hidden.as_mut_ptr().cast()));
    let parallel = sizes.rows * sizes.width * sizes.hidden.unwrap_or(sizes.out) >= PARALLEL_FROM;
    if plan.operand > 0 {
        each(parallel, sizes.rows.div_ceil(ROWS), |job| {
            let rows = job * ROWS..((job + 1) * ROWS).min(sizes.rows);
            // SAFETY: the words hold all rows, and these are this job's.
            unsafe { take::<BF16>(chain.norm.as_ref(), x, rows.clone(), operand.at(rows.start * plan.row), plan.row) };
        });
    }
    // SAFETY: the words hold all rows.
    let packed = |words: Words, row: usize, first: usize| unsafe { Rows { far: true, ..Rows::along(words.at(first * row), row) } };
    let operand = |first: usize| if plan.operand == 0 { Rows::in_place(x, first, 0) } else { packed(operand, plan.row, first) };
    if let (Some(layer), Some(weight)) = (&chain.hidden, weights.hidden) {
        let (how, cut) = (chain.product(layer, Epilogue::Gelu), cut::<BF16>(sizes.rows, weight.n, weight.k));
        each(parallel, cut.groups * cut.blocks, |job| {
            let (columns, rows) = (cut.group(job / cut.blocks), cut.block(job % cut.blocks));
            let mut sums = pool.scratch(plan.scratch()[1]);
            // SAFETY: the caller's promise; these columns of these rows are this job's.
            unsafe {
                let words = hidden.at(rows.start * plan.hidden_row).cast();
                let to = Hidden { words, row: plan.hidden_row, sums: sums.as_mut_ptr() };
                hidden_layer::<BF16>(&how, operand(rows.start), rows.len(), weight, columns, weight, to);
            }
        });
    }
    let cut = cut::<BF16>(sizes.rows, sizes.out, weights.last.k);
    each(parallel, cut.groups * cut.blocks, |job| {
        let (columns, rows) = (cut.group(job / cut.blocks), cut.block(job % cut.blocks));
        let left = if weights.hidden.is_some() { packed(hidden, plan.hidden_row, rows.start) } else { operand(rows.start) };
        // SAFETY: as above.
        unsafe {
            let (how, to) = (chain.last_of(&rows, sizes.out), c.from(rows.start));
            last_layer::<BF16>(&how, left, rows.len(), weights, columns, to, &mut Later::default());
        }
    });
}

impl Chain<'_> {
    /// The last product for some of the rows, each of so many elements.
    fn last_of(&self, rows: &Range<usize>, out: usize) -> Product<'_> {
        let after = match self.after {
            Epilogue::Add(x) => Epilogue::Add(&x[rows.start * out..]),
            Epilogue::GeluDerivative(x) => Epilogue::GeluDerivative(&x[rows.start * out..]),
            Epilogue::Residual { x, scale } => Epilogue::Residual { x: &x[rows.start * out..], scale: &scale[rows.start..] },
            after @ (Epilogue::Identity | Epilogue::Gelu) => after,
        };
        self.product(&self.last, after)
    }
}

/// Rows of x as words, normalized where there is a norm, `row` from one to the next.
///
/// # Safety
/// The CPU has the features of [`crate::cpu::bf16`]; rows of x are as long as the norm's; there are at most [`BLOCK_ROWS`], and `to` has `row` words for each.
unsafe fn take<const BF16: bool>(norm: Option<&Norm>, x: &Mat, rows: Range<usize>, to: *mut u32, row: usize) {
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
unsafe fn normalize<const BF16: bool>(norm: &Norm, x: &Mat, rows: Range<usize>, to: *mut u32, row: usize) {
    let last = rows.len() - 1;
    for first in (0..rows.len()).step_by(norm::TOGETHER) {
        // Where there are no more rows, the last once more.
        let at: [usize; norm::TOGETHER] = std::array::from_fn(|i| (first + i).min(last));
        let from = at.map(|i| x.f32()[(rows.start + i) * x.row_stride..][..x.cols].as_ptr());
        // SAFETY: the caller's promise.
        unsafe { norm::rows::<BF16>(norm, from, at.map(|i| to.add(i * row))) };
    }
}

/// Where hidden elements go: words, from row to row, and a place for the sums of a panel.
#[derive(Clone, Copy)]
struct Hidden {
    words: *mut f32,
    row: usize,
    sums: *mut f32,
}

/// # Safety
/// As [`run`]; `left` has so many rows, and `to` has room for them; nobody else uses these columns of it. `follow` is used next.
unsafe fn hidden_layer<const BF16: bool>(
    how: &Product,
    left: Rows,
    rows: usize,
    weight: &Packed,
    columns: Range<usize>,
    follow: &Packed,
    to: Hidden,
) {
    let inner = Inner::new(weight.k, per_step::<BF16>());
    let place = |chunk, column| weight.words[inner.place(weight.n, chunk, column)..].as_ptr().cast::<u32>();
    for panel in panels(columns.clone()) {
        for chunk in 0..inner.chunks {
            // What is used behind this: the panel's next chunk, the next panel, or the weight that follows.
            let next = match () {
                _ if chunk + 1 < inner.chunks => place(chunk + 1, panel.start),
                _ if panel.end < columns.end => place(0, panel.end),
                _ => follow.words.as_ptr().cast(),
            };
            let mut ends = Ends::of(how, chunk == 0, chunk + 1 == inner.chunks);
            let sums = if BF16 {
                ends.words = Some((Words(to.words.cast()), to.row));
                // Sums of several chunks are kept for all rows, those of one for eight.
                let eight = if inner.chunks > 1 { ROWS * PANEL } else { 0 };
                Target { eight, first: panel.start, ..Target::new(to.sums, PANEL) }
            } else {
                Target::new(to.words, to.row)
            };
            let b = [place(chunk, panel.start), next];
            // SAFETY: the caller's promise.
            unsafe {
                let a = Rows { far: left.far && panel.start == columns.start, ..left.from(chunk * inner.steps) };
                multiply::<BF16>(a, 0..rows, inner.steps_of(chunk), b, panel.clone(), sums, &ends, &mut Later::default());
            }
        }
    }
}

/// # Safety
/// As [`run`]; `left` has so many rows, and `to` begins with the first of as many of the result, of which nobody else uses these columns.
unsafe fn last_layer<const BF16: bool>(
    how: &Product,
    left: Rows,
    rows: usize,
    weights: Weights,
    columns: Range<usize>,
    to: Target,
    later: &mut Later,
) {
    let weight = weights.last;
    let inner = Inner::new(weight.k, per_step::<BF16>());
    let place = |chunk| weight.words[inner.place(weight.n, chunk, columns.start)..].as_ptr().cast();
    for chunk in 0..inner.chunks {
        // Behind the last chunk the next job begins.
        let next = if chunk + 1 < inner.chunks { place(chunk + 1) } else { weights.hidden.unwrap_or(weight).words.as_ptr().cast() };
        let ends = Ends::of(how, chunk == 0, chunk + 1 == inner.chunks);
        let (steps, b, columns) = (inner.steps_of(chunk), [place(chunk), next], columns.clone());
        // SAFETY: the caller's promise.
        unsafe { multiply::<BF16>(left.from(chunk * inner.steps), 0..rows, steps, b, columns, to, &ends, later) };
    }
}
