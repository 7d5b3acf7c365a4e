//! The fast version: one head of an image at a time; its groups' keys are packed once, then blocks of queries pass by.

use std::ops::Range;

use esvit_graph::Io;
#[cfg(target_arch = "x86_64")]
use esvit_graph::Precision;
use esvit_simd::lanes;
use esvit_simd::panel::padded;
use rayon::prelude::*;

use super::block::{BLOCK, BlockSizes, QueryBlock};
use super::geometry::{AttentionGeometry, PADDING, QueryGroup};
#[cfg(target_arch = "x86_64")]
use super::mixed::Bf16Block;
use super::operands::{AttentionHead, AttentionOperands};
use super::single::F32Block;
#[cfg(target_arch = "x86_64")]
use crate::precision::rounds;

/// Pieces of images that each add up a bias gradient.
const PIECES: usize = 16;

/// A pointer that parallel work writes disjoint rows and columns through.
#[derive(Clone, Copy)]
struct HeadRowsMut {
    base: *mut f32,
    len: usize,
    width: usize,
}

// SAFETY: units have different images or different heads, so what they write through copies of this pointer never overlaps;
// no thread reads it before the loop ends.
unsafe impl Send for HeadRowsMut {}
// SAFETY: as above.
unsafe impl Sync for HeadRowsMut {}

impl HeadRowsMut {
    fn new(values: &mut [f32], width: usize) -> HeadRowsMut {
        HeadRowsMut { base: values.as_mut_ptr(), len: values.len(), width }
    }

    /// `from.len()` columns from `column` of a row become `factor·from`.
    ///
    /// # Safety
    /// No other unit reads or writes them.
    unsafe fn write(&self, row: usize, column: usize, from: &[f32], factor: f32) {
        let at = row * self.width + column;
        assert!(at + from.len() <= self.len);
        // SAFETY: inside the buffer (assert), exclusive by the caller's promise.
        let to = unsafe { std::slice::from_raw_parts_mut(self.base.add(at), from.len()) };
        lanes::scale(factor, from, to);
    }
}

/// Precision of the products, with its tiles.
trait Precise {
    type Block<'s>: QueryBlock<'s>;
}

struct Single;

impl Precise for Single {
    type Block<'s> = F32Block<'s>;
}

#[cfg(target_arch = "x86_64")]
struct Mixed;

#[cfg(target_arch = "x86_64")]
impl Precise for Mixed {
    type Block<'s> = Bf16Block<'s>;
}

/// The bias with each head's column in one piece, `[H, R]`.
fn by_heads(bias: &[f32], heads: usize, to: &mut [f32]) {
    let rows = bias.len() / heads;
    for (h, to) in to.chunks_exact_mut(rows.max(1)).enumerate() {
        for (to, row) in to.iter_mut().zip(bias.chunks_exact(heads)) {
            *to = row[h];
        }
    }
}

/// Scratch bytes of one call: the bias by heads, each thread's tiles, and the sums of the backward pass.
pub(super) fn scratch(geometry: &AttentionGeometry, heads: usize, c: usize, threads: usize, backward: bool) -> usize {
    let d = c / heads;
    let bias = heads * geometry.bias_rows;
    let sizes = BlockSizes::of(geometry, d);
    let tiles = F32Block::floats(&sizes, backward);
    #[cfg(target_arch = "x86_64")]
    let tiles = if rounds(Precision::Mixed) { tiles.max(Bf16Block::floats(&sizes, backward)) } else { tiles };
    let tiles = tiles + if backward { 2 * most_keys(geometry) * padded(d) } else { 0 };
    let sums = if backward { geometry.images().min(PIECES) * bias } else { 0 };
    4 * (bias + threads.min(geometry.images() * heads) * (tiles + BLOCK) + sums)
}

/// Rows of the keys of an image at most.
fn most_keys(geometry: &AttentionGeometry) -> usize {
    geometry.grids.iter().map(|g| g.key_rows).max().unwrap_or(0)
}

/// Splits the queries of a group into blocks of at most [`BLOCK`] queries.
fn blocks(group: &QueryGroup) -> impl Iterator<Item = Range<usize>> {
    let queries = group.queries.len();
    (0..queries.div_ceil(BLOCK)).map(move |b| b * BLOCK..((b + 1) * BLOCK).min(queries))
}

pub(super) fn forward(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
    #[cfg(target_arch = "x86_64")]
    if rounds(io.precision) {
        return forward_of::<Mixed>(geometry, from, io);
    }
    forward_of::<Single>(geometry, from, io);
}

pub(super) fn gradient(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
    #[cfg(target_arch = "x86_64")]
    if rounds(io.precision) {
        return gradient_of::<Mixed>(geometry, from, io);
    }
    gradient_of::<Single>(geometry, from, io);
}

fn forward_of<P: Precise>(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
    let (pool, heads, rows) = (io.pool, from.heads, geometry.bias_rows);
    let d = from.c / heads;
    let sizes = BlockSizes::of(geometry, d);
    let mut by_head = pool.scratch(heads * rows);
    if let Some(bias) = from.bias {
        by_heads(bias, heads, &mut by_head);
    }
    let by_head = &*by_head;
    let [y, stats] = io.outs::<2>();
    if !geometry.is_complete() {
        y.fill(0.0);
        stats.fill(0.0);
    }
    let (y, stats) = (HeadRowsMut::new(y, from.c), HeadRowsMut::new(stats, heads));
    (0..geometry.images() * heads).into_par_iter().for_each(|unit| {
        let (n, h) = (unit / heads, unit % heads);
        let image = geometry.image(n, from.draws);
        let head = AttentionHead::new(from, image, h);
        let bias = from.bias.map(|_| &by_head[h * rows..][..rows]);
        let mut scratch = pool.scratch(P::Block::floats(&sizes, false));
        let mut tiles = P::Block::new(&mut scratch, &sizes, false);
        let mut log_sums = [0.0; BLOCK];
        for group in image.groups {
            tiles.keys(&head, group, false);
            let dp = padded(d);
            for block in blocks(group) {
                let queries = &group.queries[block.clone()];
                tiles.forward(&head, group, block, bias, &mut log_sums);
                let results = tiles.results(d);
                for (i, &query) in queries.iter().enumerate() {
                    let row = image.first_query + query as usize;
                    // SAFETY: this image's rows and this head's columns are this unit's alone.
                    unsafe {
                        y.write(row, h * d, &results.y[i * dp..][..d], 1.0);
                        stats.write(row, h, &log_sums[i..i + 1], 1.0);
                    }
                }
            }
        }
    });
}

/// Number of pieces of the images, whatever the threads, and the images of each: a piece adds up one bias gradient.
fn pieces(images: usize, biased: bool) -> (usize, impl Fn(usize) -> Range<usize>) {
    let pieces = if biased { images.min(PIECES) } else { images };
    (pieces, move |i| i * images / pieces..(i + 1) * images / pieces)
}

fn gradient_of<P: Precise>(geometry: &AttentionGeometry, from: AttentionOperands, io: &mut Io) {
    let (pool, heads, rows) = (io.pool, from.heads, geometry.bias_rows);
    let d = from.c / heads;
    let (dp, sizes) = (padded(d), BlockSizes::of(geometry, d));
    let count = io.inputs.len();
    let (stats, dy) = (io.f32(count - 2), io.f32(count - 1));
    let mut by_head = pool.scratch(heads * rows);
    if let Some(bias) = from.bias {
        by_heads(bias, heads, &mut by_head);
    }
    let by_head = &*by_head;

    let mut outputs = io.outputs.iter_mut().map(|o| o.f32());
    let dq = outputs.next().expect("dq");
    if !geometry.is_complete() {
        dq.fill(0.0);
    }
    let dq = HeadRowsMut::new(dq, from.q_width);
    let dkv = if from.is_fused() { dq } else { HeadRowsMut::new(outputs.next().expect("dkv"), from.kv_width) };
    let dbias = outputs.next();

    let (count, range) = pieces(geometry.images(), dbias.is_some());
    let mut sums = pool.scratch(if dbias.is_some() { count * heads * rows } else { 0 });
    let unit = |unit: usize, sums: &mut [f32]| {
        let (piece, h) = (unit / heads, unit % heads);
        sums.fill(0.0);
        let bias = from.bias.map(|_| &by_head[h * rows..][..rows]);
        let mut scratch = pool.scratch(P::Block::floats(&sizes, true));
        let mut tiles = P::Block::new(&mut scratch, &sizes, true);
        let mut totals = pool.scratch(2 * most_keys(geometry) * dp);
        for n in range(piece) {
            let image = geometry.image(n, from.draws);
            let head = AttentionHead::new(from, image, h);
            let key_rows = image.grid.key_rows;
            let (all_dk, all_dv) = totals[..2 * key_rows * dp].split_at_mut(key_rows * dp);
            all_dk.fill(0.0);
            all_dv.fill(0.0);
            for group in image.groups {
                tiles.keys(&head, group, true);
                for block in blocks(group) {
                    let queries = &group.queries[block.clone()];
                    let mut log_sums = [0.0; BLOCK];
                    for (sum, &query) in log_sums.iter_mut().zip(queries) {
                        *sum = stats[(image.first_query + query as usize) * heads + h];
                    }
                    tiles.backward(&head, group, block, bias, (dy, h * d), &log_sums, sums);
                    let results = tiles.results(d);
                    for (i, &query) in queries.iter().enumerate() {
                        let row = image.first_query + query as usize;
                        // SAFETY: this image's rows and this head's columns are this unit's alone.
                        unsafe { dq.write(row, head.columns[0], &results.dq[i * dp..][..d], results.dq_factor) };
                    }
                }
                let results = tiles.results(d);
                for (k, &key) in group.keys.iter().enumerate().filter(|(_, key)| **key != PADDING) {
                    let to = key as usize * dp..(key as usize + 1) * dp;
                    lanes::accumulate(&results.dk[k * dp..][..dp], &mut all_dk[to.clone()]);
                    lanes::accumulate(&results.dv[k * dp..][..dp], &mut all_dv[to]);
                }
            }
            for row in 0..key_rows {
                // SAFETY: as above; q, k and v have different columns.
                unsafe {
                    dkv.write(image.first_key + row, head.columns[1], &all_dk[row * dp..][..d], 1.0);
                    dkv.write(image.first_key + row, head.columns[2], &all_dv[row * dp..][..d], 1.0);
                }
            }
        }
    };
    match dbias {
        None => (0..count * heads).into_par_iter().for_each(|u| unit(u, &mut [])),
        Some(dbias) => {
            sums.par_chunks_mut(rows).enumerate().for_each(|(u, sums)| unit(u, sums));
            let (total, rest) = sums.split_at_mut(heads * rows);
            for more in rest.chunks(heads * rows) {
                lanes::accumulate(more, total);
            }
            for (h, column) in total.chunks(rows).enumerate() {
                for (to, &v) in dbias.chunks_exact_mut(heads).zip(column) {
                    to[h] = v;
                }
            }
        }
    }
}
