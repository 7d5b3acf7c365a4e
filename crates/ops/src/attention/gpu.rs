//! Kernels of attention, and their dispatches over pieces of the images.

use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View, reduce};
use esvit_graph::{GpuIo, Result};

use super::Attention;
use super::geometry::{AttentionGrid, PADDING};

/// Mirrors `Params` in `params.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    images: u32,
    heads: u32,
    channels: u32,
    head_width: u32,
    query_rows: u32,
    key_rows: u32,
    q_width: u32,
    kv_width: u32,
    key_column: u32,
    value_column: u32,
    bias_rows: u32,
    segment: u32,
    units_each: u32,
    q_first: u32,
    kv_first: u32,
    y_first: u32,
    dq_first: u32,
    dkv_first: u32,
    stats_first: u32,
    partial_first: u32,
    scale: f32,
    is_drawn: u32,
    pad: [u32; 2],
}

const OPERANDS: &str = include_str!("operands.wgsl");
const PARAMS: &str = include_str!("params.wgsl");

static FORWARD: Kernel = Kernel::new::<Params>("attention", &[include_str!("forward.wgsl"), OPERANDS, PARAMS], "main", 7);
static ROW_STATS: Kernel = Kernel::new::<Params>("attention_row_stats", &[include_str!("row_stats.wgsl"), PARAMS], "main", 5);
static QUERIES: Kernel = Kernel::new::<Params>("attention_dq", &[include_str!("queries.wgsl"), OPERANDS, PARAMS], "main", 8);
static KEYS: Kernel = Kernel::new::<Params>("attention_dkv", &[include_str!("keys.wgsl"), OPERANDS, PARAMS], "main", 7);
static MAP: Kernel = Kernel::new::<Params>("image_attention_map", &[include_str!("map.wgsl"), OPERANDS, PARAMS], "main", 6);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &ROW_STATS, &QUERIES, &KEYS, &MAP];

/// Workgroups of the queries' backward dispatch, where each leaves a sum of the bias gradient.
const BUSY: usize = 2048;
/// Bytes of those sums at most.
const SUMS: usize = 64 << 20;

/// Groups of a segment as words: for every variant where its queries and its keys begin; for every query where its keys begin, how many
/// there are, its slot and how many of them have absolute slots; those keys as (row, slot); for every key where its groups begin and how
/// many there are; those as (first query, queries, slot, whether it is absolute); their queries as (row, slot). Places count from the first
/// word.
fn words(grid: &AttentionGrid) -> Vec<u32> {
    let mut words = vec![0; 2 * grid.variants.len()];
    for (v, groups) in grid.variants.iter().enumerate() {
        let queries = words.len();
        words.resize(queries + 4 * grid.query_rows, 0);
        let keys = words.len();
        words.resize(keys + 2 * grid.key_rows, 0);
        words[2 * v] = queries as u32;
        words[2 * v + 1] = keys as u32;
        let mut of_key = vec![Vec::new(); grid.key_rows];
        for group in groups {
            let key_list = words.len() as u32;
            words.extend(group.keys.iter().zip(&group.key_slots).flat_map(|(&row, &slot)| [row, slot]));
            let query_list = words.len() as u32;
            words.extend(group.queries.iter().zip(&group.query_slots).flat_map(|(&row, &slot)| [row, slot]));
            for (&row, &slot) in group.queries.iter().zip(&group.query_slots) {
                let at = queries + 4 * row as usize;
                words[at..at + 4].copy_from_slice(&[key_list, group.keys.len() as u32, slot, group.absolute as u32]);
            }
            for (k, (&row, &slot)) in group.keys.iter().zip(&group.key_slots).enumerate().filter(|(_, (row, _))| **row != PADDING) {
                of_key[row as usize].push([query_list, group.queries.len() as u32, slot, u32::from(k < group.absolute)]);
            }
        }
        for (row, entries) in of_key.iter().enumerate() {
            words[keys + 2 * row] = words.len() as u32;
            words[keys + 2 * row + 1] = entries.len() as u32;
            words.extend(entries.iter().flatten());
        }
    }
    words
}

/// Images of one segment that a dispatch takes.
struct AttentionPiece<'g> {
    params: Params,
    grid: &'g AttentionGrid,
    table: View,
    /// First row of the queries and of the keys.
    first: [usize; 2],
    /// First image over all segments.
    image: usize,
}

impl AttentionPiece<'_> {
    fn images(&self) -> usize {
        self.params.images as usize
    }

    /// The images' rows in a matrix with a row for every query.
    fn queries(&self, rec: &Recorder, view: &View, cols: usize) -> (View, u32) {
        rec.aligned(view, self.first[0] * cols, self.images() * self.grid.query_rows * cols)
    }

    /// The images' rows in a matrix with a row for every key.
    fn keys(&self, rec: &Recorder, view: &View, cols: usize) -> (View, u32) {
        rec.aligned(view, self.first[1] * cols, self.images() * self.grid.key_rows * cols)
    }
}

/// Operands as the kernels bind them: bias and draws are the queries where there are none, and not read.
struct BoundOperands<'a> {
    q: &'a View,
    kv: &'a View,
    bias: &'a View,
    draws: &'a View,
    q_width: usize,
    kv_width: usize,
    c: usize,
}

fn bound<'a>(op: &Attention, io: &'a GpuIo) -> BoundOperands<'a> {
    let q_width = io.matrix(0).1;
    let kv = usize::from(!op.fused);
    let q = &io.inputs[0];
    let bias = if op.geometry.bias_rows > 0 { &io.inputs[kv + 1] } else { q };
    let draws = if op.geometry.is_drawn() { &io.inputs[op.arity() - 1] } else { q };
    BoundOperands {
        q,
        kv: &io.inputs[kv],
        bias,
        draws,
        q_width,
        kv_width: io.matrix(kv).1,
        c: if op.fused { q_width / 3 } else { q_width },
    }
}

fn pieces<'g>(
    op: &'g Attention,
    b: &BoundOperands,
    image_words: impl Fn(&AttentionGrid) -> usize,
    rec: &Recorder,
) -> Result<Vec<AttentionPiece<'g>>> {
    let d = b.c / op.heads;
    let mut pieces = Vec::new();
    let mut image = 0;
    for (segment, grid) in op.geometry.grids.iter().enumerate() {
        let table = crate::constant(rec, "queries and their keys", &words(grid))?;
        let image_words = (grid.query_rows * b.q_width).max(grid.key_rows * b.kv_width).max(image_words(grid));
        for images in rec.image_pieces(grid.images, 4 * image_words) {
            let params = Params {
                images: images.len() as u32,
                heads: op.heads as u32,
                channels: b.c as u32,
                head_width: d as u32,
                query_rows: grid.query_rows as u32,
                key_rows: grid.key_rows as u32,
                q_width: b.q_width as u32,
                kv_width: b.kv_width as u32,
                key_column: if op.fused { b.c as u32 } else { 0 },
                value_column: if op.fused { 2 * b.c as u32 } else { b.c as u32 },
                bias_rows: op.geometry.bias_rows as u32,
                segment: segment as u32,
                units_each: 1,
                scale: 1.0 / (d as f32).sqrt(),
                is_drawn: op.geometry.is_drawn().into(),
                ..Params::zeroed()
            };
            let first = [grid.first_query + images.start * grid.query_rows, grid.first_key + images.start * grid.key_rows];
            pieces.push(AttentionPiece { params, grid, table: table.clone(), first, image: image + images.start });
        }
        image += grid.images;
    }
    Ok(pieces)
}

pub(super) fn forward(op: &Attention, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let b = bound(op, io);
    for piece in pieces(op, &b, |_| 0, rec)? {
        let (q, q_first) = piece.queries(rec, b.q, b.q_width);
        let (kv, kv_first) = piece.keys(rec, b.kv, b.kv_width);
        let (y, y_first) = piece.queries(rec, &io.outputs[0], b.c);
        let (stats, stats_first) = piece.queries(rec, &io.outputs[1], op.heads);
        let params = Params { q_first, kv_first, y_first, stats_first, ..piece.params };
        let groups = piece.images() * op.heads * piece.grid.query_rows;
        rec.dispatch(&FORWARD, &[&q, &kv, b.bias, &piece.table, b.draws, &y, &stats], &params, Grid::fold(groups))?;
    }
    Ok(())
}

pub(super) fn maps(op: &Attention, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let b = bound(op, io);
    let map_words = |grid: &AttentionGrid| op.heads * grid.query_rows * grid.key_rows;
    for piece in pieces(op, &b, map_words, rec)? {
        let (q, q_first) = piece.queries(rec, b.q, b.q_width);
        let (kv, kv_first) = piece.keys(rec, b.kv, b.kv_width);
        let mut before = 0;
        let mut left = piece.image;
        for grid in &op.geometry.grids {
            let images = left.min(grid.images);
            before += images * map_words(grid);
            left -= images;
        }
        let (y, y_first) = rec.aligned(&io.outputs[0], before, piece.images() * map_words(piece.grid));
        let params = Params { q_first, kv_first, y_first, ..piece.params };
        let threads = piece.images() * op.heads * piece.grid.query_rows;
        rec.dispatch(&MAP, &[&q, &kv, b.bias, &piece.table, b.draws, &y], &params, Grid::elements(threads, 64))?;
    }
    Ok(())
}

pub(super) fn gradient(op: &Attention, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let b = bound(op, io);
    let [y, stats, dy] = [3, 2, 1].map(|n| &io.inputs[io.inputs.len() - n]);
    let dq = &io.outputs[0];
    let dkv = if op.fused { dq } else { &io.outputs[1] };
    let dbias = (op.geometry.bias_rows > 0).then(|| &io.outputs[io.outputs.len() - 1]);
    let pieces = pieces(op, &b, |_| 0, rec)?;

    // Each workgroup takes some queries of a head, one after the other, and leaves a sum of the bias gradient.
    let sum_words = op.geometry.bias_rows * op.heads;
    let blocks = |piece: &AttentionPiece| {
        let units = piece.images() * piece.grid.query_rows;
        if sum_words == 0 {
            return (1, units);
        }
        let most = (BUSY / op.heads).min(SUMS / (4 * sum_words)).clamp(1, units);
        let each = units.div_ceil(most);
        (each, units.div_ceil(each))
    };
    let total: usize = if sum_words == 0 { 0 } else { pieces.iter().map(|p| blocks(p).1).sum() };
    let sums = rec.scratch((4 * total * sum_words) as u64);
    let most_rows = pieces.iter().map(|p| p.images() * p.grid.query_rows).max().unwrap_or(0);
    let row_stats = rec.scratch((4 * (1 + 2 * most_rows * op.heads)) as u64);

    let mut done = 0;
    for piece in &pieces {
        let (each, count) = blocks(piece);
        let (q, q_first) = piece.queries(rec, b.q, b.q_width);
        let (kv, kv_first) = piece.keys(rec, b.kv, b.kv_width);
        let (y, out_first) = piece.queries(rec, y, b.c);
        let (dy, y_first) = piece.queries(rec, dy, b.c);
        let (stats, stats_first) = piece.queries(rec, stats, op.heads);
        let (dq, dq_first) = piece.queries(rec, dq, b.q_width);
        let (dkv, dkv_first) = piece.keys(rec, dkv, b.kv_width);
        let (part, partial_first) =
            if sum_words == 0 { (sums.clone(), 0) } else { rec.aligned(&sums, done * sum_words, count * sum_words) };
        let params =
            Params { units_each: each as u32, q_first, kv_first, y_first, dq_first, dkv_first, stats_first, partial_first, ..piece.params };
        let rows = piece.images() * piece.grid.query_rows;
        // row_stats.wgsl, which writes no dq, finds the beginning of y there.
        let with_y = Params { dq_first: out_first, ..params };
        rec.dispatch(&ROW_STATS, &[&stats, &y, &dy, b.draws, &row_stats], &with_y, Grid::elements(rows * op.heads, 64))?;
        let bindings = [&q, &kv, b.bias, &piece.table, &row_stats, &dy, &dq, &part];
        rec.dispatch(&QUERIES, &bindings, &params, Grid::fold(count * op.heads))?;
        let groups = piece.images() * op.heads * piece.grid.key_rows;
        rec.dispatch(&KEYS, &[&q, &kv, b.bias, &piece.table, &row_stats, &dy, &dkv], &params, Grid::fold(groups))?;
        if sum_words > 0 {
            done += count;
        }
    }
    if let Some(dbias) = dbias {
        reduce::column_sum(rec, &sums, dbias, total, sum_words)?;
    }
    Ok(())
}
