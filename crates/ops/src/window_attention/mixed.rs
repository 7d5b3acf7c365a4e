//! Tasks in mixed precision: operands of products are rounded to bf16 as they are gathered and as the softmax leaves them, sums are f32.
//!
//! Each matrix of a window's head is packed once, in the forms that its products take ([`esvit_simd::bf16x2`]); where the program keeps
//! rows in bf16x2, packing copies. Scores are without the factor 1/√D, bias and mask with its inverse: exponentials have it.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use bytemuck::cast_slice_mut;
use esvit_simd::bf16x2::softmax::{ScoreTile, SoftmaxGradient};
use esvit_simd::bf16x2::{
    Bf16Product, BiasRows, RegionMask, RowPart, Scores, copy_rows, lanes, line, pack_rows, pack_transposed, pack_vnni, words,
};

use super::gather::HeadColumns;
use super::geometry::{MASK, PADDING, WindowTokens};
use super::operands::{TokenRows, WindowOperands, WindowRowsMut};
use crate::aligned::{ALIGN, aligned};

/// Queries whose scores with all keys are computed at a time.
const QUERIES: usize = 64;

/// Sizes of the tiles: `T` tokens, `D` channels a head, as they are and packed.
#[derive(Clone, Copy)]
pub(super) struct Bf16WindowTileSizes {
    area: usize,
    d: usize,
    /// Words of two bf16 of T tokens, and of D channels.
    token_words: usize,
    channel_words: usize,
    /// Length of a row of scores.
    line: usize,
}

impl Bf16WindowTileSizes {
    pub fn new(area: usize, d: usize) -> Bf16WindowTileSizes {
        Bf16WindowTileSizes { area, d, token_words: area.div_ceil(2), channel_words: d.div_ceil(2), line: line(area) }
    }

    /// Floats of one task's tiles: see [`Bf16WindowTiles::new`].
    pub fn floats(&self, group: usize, panels: usize, backward: bool) -> usize {
        let &Bf16WindowTileSizes { area, d, token_words, channel_words, line } = self;
        let scores = area * line;
        let shared = ALIGN + 3 * line + scores + channel_words * line + token_words * line;
        let rows = if backward { [4, 3, 3] } else { [3, 1, 1] };
        let of_rows = rows[0] * area * words(d) + rows[1] * token_words * lanes(d) + rows[2] * group * area * d;
        let more = if backward { group * panels + 2 * scores + channel_words * line } else { 0 };
        shared + of_rows + more
    }
}

/// One task's tiles: f32, and words of two bf16.
struct Bf16WindowTiles<'s> {
    max: &'s mut [f32],         // [line]: of each query's scores
    inverse: &'s mut [f32],     // [line]
    along: &'s mut [f32],       // [line]
    s: &'s mut [f32],           // [T, line]: scores, keys as rows
    qt: &'s mut [u32],          // Q transposed
    packed: [&'s mut [u32]; 4], // rows of q, k, v, dy
    across: [&'s mut [u32]; 3], // v; or q, k, dy, pairs of tokens
    scores: &'s mut [u32],      // P; or dS, pairs of keys
    results: &'s mut [f32],     // [T, group·D]: y; or [T, 3, group·D]: dq, dk, dv; maybe words of two
    // Backward only:
    dyt: &'s mut [u32],   // dY transposed
    dp: &'s mut [f32],    // [T, line]
    p: &'s mut [u32],     // rows
    ds: &'s mut [u32],    // rows
    dbias: &'s mut [f32], // [group, panels]
}

impl<'s> Bf16WindowTiles<'s> {
    fn new(scratch: &'s mut [f32], sizes: &Bf16WindowTileSizes, group: usize, panels: usize, backward: bool) -> Bf16WindowTiles<'s> {
        let &Bf16WindowTileSizes { area, d, token_words, channel_words, line } = sizes;
        let mut scratch = aligned(scratch);
        let mut take = |n: usize| {
            let (head, tail) = std::mem::take(&mut scratch).split_at_mut(n);
            scratch = tail;
            head
        };
        let on = usize::from(backward);
        let zeroed = |tile: &'s mut [f32]| {
            tile.fill(0.0);
            tile
        };
        let (scores, rows, across) = (area * line, area * words(d), token_words * lanes(d));
        // Columns that no product writes are zero.
        Bf16WindowTiles {
            max: take(line),
            inverse: zeroed(take(line)),
            along: zeroed(take(line)),
            s: zeroed(take(scores)),
            qt: cast_slice_mut(take(channel_words * line)),
            packed: [1, 1, 1, on].map(|on| cast_slice_mut(take(on * rows))),
            across: [1, on, on].map(|on| cast_slice_mut(take(on * across))),
            scores: cast_slice_mut(take(token_words * line)),
            results: take((1 + 2 * on) * group * area * d),
            dyt: cast_slice_mut(take(on * channel_words * line)),
            dp: zeroed(take(on * scores)),
            p: cast_slice_mut(take(on * scores / 2)),
            ds: cast_slice_mut(take(on * scores / 2)),
            dbias: zeroed(take(on * group * panels)),
        }
    }
}

/// A task: some heads over a range of windows.
pub(super) struct Bf16WindowTask<'a> {
    operands: WindowOperands<'a>,
    heads: Range<usize>,
    windows: Range<usize>,
    sizes: Bf16WindowTileSizes,
    tiles: Bf16WindowTiles<'a>,
    qkv: RowPointers<'a>,
}

/// Pointers to a window's rows; null for zeros.
enum RowPointers<'a> {
    F32(&'a [f32], Vec<*const f32>),
    Bf16x2(&'a [u32], Vec<*const u32>),
}

impl<'a> RowPointers<'a> {
    fn of(matrix: TokenRows<'a>) -> RowPointers<'a> {
        match matrix {
            TokenRows::F32(from) => RowPointers::F32(from, Vec::new()),
            TokenRows::Bf16x2(from) => RowPointers::Bf16x2(from, Vec::new()),
        }
    }

    /// Finds a window's rows of `width` columns.
    fn place(&mut self, window: &WindowTokens, width: usize, padding: Option<TokenRows>) {
        match self {
            RowPointers::F32(from, rows) => {
                let padding = match padding {
                    Some(TokenRows::F32(row)) => row.as_ptr(),
                    _ => std::ptr::null(),
                };
                place(rows, window, from, width, padding);
            }
            RowPointers::Bf16x2(from, rows) => {
                let padding = match padding {
                    Some(TokenRows::Bf16x2(row)) => row.as_ptr(),
                    _ => std::ptr::null(),
                };
                place(rows, window, from, width / 2, padding);
            }
        }
    }

    /// Packs parts of them, `d` columns each.
    ///
    /// # Safety
    /// As [`pack_rows`].
    unsafe fn pack(&self, d: usize, parts: &[RowPart]) {
        // SAFETY: the caller's promise.
        unsafe {
            match self {
                RowPointers::F32(_, rows) => pack_rows(rows, d, 1, parts),
                RowPointers::Bf16x2(_, rows) => copy_rows(rows, d, parts),
            }
        }
    }
}

/// Prefetches a share of the rows that the next window reads and writes; each matrix with its parts.
fn prefetch_share(
    columns: &HeadColumns,
    next: Option<&WindowTokens>,
    share: (usize, usize),
    reads: &[(TokenRows, usize)],
    to: (WindowRowsMut, usize),
) {
    for (matrix, parts) in reads {
        match matrix {
            TokenRows::F32(matrix) => columns.prefetch_rows(next, share, matrix.as_ptr(), *parts),
            TokenRows::Bf16x2(matrix) => columns.in_words().prefetch_rows(next, share, matrix.as_ptr().cast(), *parts),
        }
    }
    if to.0.bf16x2 { columns.in_words() } else { *columns }.prefetch_result(next, share, to.0, to.1);
}

impl<'a> Bf16WindowTask<'a> {
    /// A task with its tiles in scratch memory.
    ///
    /// # Safety
    /// The CPU multiplies bf16.
    pub unsafe fn new(
        operands: WindowOperands<'a>,
        heads: Range<usize>,
        windows: Range<usize>,
        group: usize,
        backward: bool,
        scratch: &'a mut [f32],
    ) -> Bf16WindowTask<'a> {
        let sizes = Bf16WindowTileSizes::new(operands.geometry.area, operands.three_c / 3 / operands.heads);
        let tiles = Bf16WindowTiles::new(scratch, &sizes, group, operands.geometry.panels.len(), backward);
        Bf16WindowTask { operands, heads, windows, sizes, tiles, qkv: RowPointers::of(operands.qkv) }
    }

    /// Finds the rows of a window.
    fn begin(&mut self, window: &WindowTokens, dy: Option<&mut RowPointers>) {
        self.qkv.place(window, self.operands.three_c, self.operands.padding);
        if let Some(dy) = dy {
            dy.place(window, self.operands.three_c / 3, None);
        }
    }

    /// Packs the rows of a head: few enough to stay in the cache next to the core until they are packed further.
    fn pack(&mut self, head: usize, dy: Option<&RowPointers>) {
        let (c, d) = (self.operands.three_c / 3, self.sizes.d);
        let [q, k, v, packed_dy] = &mut self.tiles.packed;
        let part = |n: usize, to: &mut [u32]| RowPart { column: n * c + head * d, scale: 1.0, to: to.as_mut_ptr() };
        // SAFETY: the CPU multiplies bf16 (`Bf16WindowTask::new`); rows of qkv and dy have these columns, and the tiles are as large as the
        // packing.
        unsafe {
            self.qkv.pack(d, &[part(0, q), part(1, k), part(2, v)]);
            if let Some(dy) = dy {
                dy.pack(d, &[part(0, packed_dy)]);
            }
        }
    }

    /// Packed rows.
    fn packed(&self, part: usize) -> *const u32 {
        self.tiles.packed[part].as_ptr()
    }

    /// Keys (or values) times the transposed queries (or dY): rows of a tile of scores.
    fn with_queries(&self, part: usize, transposed: &[u32]) -> Bf16Product {
        let Bf16WindowTileSizes { d, channel_words, line, .. } = self.sizes;
        Bf16Product { steps: channel_words, a: self.packed(part), a_row: words(d), a_step: 1, b: transposed.as_ptr(), b_step: line }
    }

    /// Scores of all keys with some queries.
    fn scores(&mut self, g: usize, window: &WindowTokens, queries: Range<usize>) {
        let Bf16WindowTileSizes { area, line, .. } = self.sizes;
        let product = self.with_queries(1, self.tiles.qt);
        let (tiles, panels) = (&mut self.tiles, &self.operands.geometry.panels);
        let bias = self.operands.bias_of(self.heads.start + g);
        let mask = MASK / self.operands.geometry.scale(self.sizes.d);
        let mask = |shares: &[f32]| RegionMask { shares: shares.as_ptr(), value: mask, region: window.region };
        let scores = Scores {
            bias: Some(BiasRows { base: bias.as_ptr().cast_mut(), starts: &panels.starts }),
            masks: window.masks.map(mask),
            line,
            to: tiles.s.as_mut_ptr(),
            max: tiles.max.as_mut_ptr(),
        };
        tiles.max[queries.clone()].fill(f32::NEG_INFINITY);
        // SAFETY: the CPU multiplies bf16 (`Bf16WindowTask::new`); all tiles are as large as T tokens and D channels make them.
        unsafe { product.scores(area, queries, &scores) };
    }

    /// The tile of scores, and some queries of it.
    fn tile(&mut self, queries: Range<usize>) -> ScoreTile {
        let factor = self.operands.geometry.scale(self.sizes.d) * LOG2_E;
        ScoreTile { rows: self.sizes.area, columns: queries, line: self.sizes.line, factor, s: self.tiles.s.as_mut_ptr() }
    }

    fn queries(&self) -> impl Iterator<Item = Range<usize>> + use<> {
        let area = self.sizes.area;
        (0..area).step_by(QUERIES).map(move |at| at..area.min(at + QUERIES))
    }

    /// Scatters the results to their tokens; rows of padding, as floats, to `padding`.
    fn scatter(&self, columns: &HeadColumns, parts: usize, window: &WindowTokens, to: WindowRowsMut, mut padding: impl FnMut(&[f32])) {
        let words = self.sizes.area * parts * columns.heads * columns.d / if to.bf16x2 { 2 } else { 1 };
        let tile = &self.tiles.results[..words];
        if !to.bf16x2 {
            columns.scatter(tile, parts, window, to, padding);
            return;
        }
        let float = |half: u32| f32::from_bits(half << 16);
        columns.in_words().scatter(tile, parts, window, to, |row| {
            let floats: Vec<f32> = row.iter().flat_map(|word| [float(word.to_bits()), float(word.to_bits() >> 16)]).collect();
            padding(&floats);
        });
    }

    /// Computes y.
    pub fn forward(mut self, y: WindowRowsMut) {
        let Bf16WindowTileSizes { area, d, token_words, line, .. } = self.sizes;
        let (o, group) = (self.operands, self.heads.len());
        let (columns, width) = (HeadColumns::new(&o, &self.heads, d), group * d);
        for n in self.windows.clone() {
            let window = o.geometry.window(n);
            let next = (n + 1 < self.windows.end).then(|| o.geometry.window(n + 1));
            let prefetch = |stage: usize| prefetch_share(&columns, next.as_ref(), (stage, 4 * group), &[(o.qkv, 3)], (y, 1));
            self.begin(&window, None);
            for g in 0..group {
                prefetch(4 * g);
                self.pack(self.heads.start + g, None);
                // SAFETY: the CPU multiplies bf16 (`Bf16WindowTask::new`), and all tiles are as large as T tokens and D channels make them.
                unsafe { pack_transposed(self.packed(0), area, d, self.tiles.qt.as_mut_ptr(), line) };
                for queries in self.queries() {
                    self.scores(g, &window, queries.clone());
                    let (tile, tiles) = (self.tile(queries), &mut self.tiles);
                    prefetch(4 * g + 1);
                    // SAFETY: as above.
                    unsafe { tile.exponentials_vnni(tiles.max.as_ptr(), tiles.inverse.as_mut_ptr(), tiles.scores.as_mut_ptr()) };
                }
                prefetch(4 * g + 2);
                let (v, tiles) = (self.packed(2), &mut self.tiles);
                // SAFETY: as above.
                unsafe {
                    pack_vnni(v, area, d, tiles.across[0].as_mut_ptr());
                    let (a, b) = (tiles.scores.as_ptr(), tiles.across[0].as_ptr());
                    let values = Bf16Product { steps: token_words, a, a_row: 1, a_step: line, b, b_step: lanes(d) };
                    prefetch(4 * g + 3);
                    let (factors, to) = (Some(&tiles.inverse[..area]), tiles.results.as_mut_ptr());
                    match y.bf16x2 {
                        true => values.store_bf16_rows(area, d, 1.0, factors, to.cast::<u16>().add(g * d), width),
                        false => values.store_rows(area, d, 1.0, factors, false, to.add(g * d), width),
                    }
                }
            }
            self.scatter(&columns, 1, &window, y, |_| {});
        }
    }

    /// Computes dqkv, and leaves the gradients of the heads' tables `[group, (2w−1)²]`, then those of the padding `[3, group·D]`, in
    /// `sums`.
    pub fn backward(mut self, dy: TokenRows, dqkv: WindowRowsMut, sums: &mut [f32]) {
        let Bf16WindowTileSizes { area, d, token_words, line, .. } = self.sizes;
        let (o, group) = (self.operands, self.heads.len());
        let (columns, width) = (HeadColumns::new(&o, &self.heads, d), group * d);
        let panels = &o.geometry.panels;
        let (dtable, dpadding) = sums.split_at_mut(group * o.geometry.table_rows());
        let mut dy_rows = RowPointers::of(dy);
        for n in self.windows.clone() {
            let window = o.geometry.window(n);
            let next = (n + 1 < self.windows.end).then(|| o.geometry.window(n + 1));
            let prefetch = |stage: usize| prefetch_share(&columns, next.as_ref(), (stage, 5 * group), &[(o.qkv, 3), (dy, 1)], (dqkv, 3));
            self.begin(&window, Some(&mut dy_rows));
            for g in 0..group {
                prefetch(5 * g);
                self.pack(self.heads.start + g, Some(&dy_rows));
                let packed = [0, 1, 3].map(|part| self.packed(part));
                let tiles = &mut self.tiles;
                // SAFETY: the CPU multiplies bf16 (`Bf16WindowTask::new`), and all tiles are as large as T tokens and D channels make them.
                unsafe {
                    pack_transposed(packed[0], area, d, tiles.qt.as_mut_ptr(), line);
                    pack_transposed(packed[2], area, d, tiles.dyt.as_mut_ptr(), line);
                    for (across, packed) in tiles.across.iter_mut().zip(packed) {
                        pack_vnni(packed, area, d, across.as_mut_ptr());
                    }
                }
                tiles.along[..area].fill(0.0);
                for queries in self.queries() {
                    self.scores(g, &window, queries.clone());
                    let dp = self.with_queries(2, self.tiles.dyt);
                    let (tile, tiles) = (self.tile(queries.clone()), &mut self.tiles);
                    let gradient = SoftmaxGradient {
                        dp: tiles.dp.as_ptr(),
                        inverse: tiles.inverse.as_ptr(),
                        column_dots: tiles.along.as_ptr(),
                        dbias: Some(BiasRows { base: tiles.dbias[g * panels.len()..].as_mut_ptr(), starts: &panels.starts }),
                        p: tiles.p.as_mut_ptr(),
                        ds: tiles.ds.as_mut_ptr(),
                        ds_vnni: tiles.scores.as_mut_ptr(),
                    };
                    // SAFETY: as above.
                    unsafe {
                        tile.exponentials(tiles.max.as_ptr(), tiles.inverse.as_mut_ptr());
                        // dPᵀ = V·dYᵀ
                        dp.store_and_dot(area, queries, tile.s, line, tiles.dp.as_mut_ptr(), tiles.along.as_mut_ptr());
                        tile.gradient(&gradient);
                    }
                }
                prefetch(5 * g + 1);
                // dQ = dS·K/√D, dK = dSᵀ·Q/√D, dV = Pᵀ·dY, where rows of the tiles are keys.
                let tiles = &self.tiles;
                let [q, k, dy] = [0, 1, 2].map(|part| tiles.across[part].as_ptr());
                let dq = Bf16Product { steps: token_words, a: tiles.scores.as_ptr(), a_row: 1, a_step: line, b: k, b_step: lanes(d) };
                let dk = Bf16Product { a: tiles.ds.as_ptr(), a_row: line / 2, a_step: 1, b: q, ..dq };
                let dv = Bf16Product { a: tiles.p.as_ptr(), b: dy, ..dk };
                let scale = o.geometry.scale(d);
                for (part, (product, factor)) in [(dq, scale), (dk, scale), (dv, 1.0)].into_iter().enumerate() {
                    prefetch(5 * g + 2 + part);
                    let (to, at) = (self.tiles.results.as_mut_ptr(), part * width + g * d);
                    // SAFETY: as above.
                    unsafe {
                        match dqkv.bf16x2 {
                            true => product.store_bf16_rows(area, d, factor, None, to.cast::<u16>().add(at), 3 * width),
                            false => product.store_rows(area, d, factor, None, false, to.add(at), 3 * width),
                        }
                    }
                }
            }
            self.scatter(&columns, 3, &window, dqkv, |row| dpadding.iter_mut().zip(row).for_each(|(sum, d)| *sum += d));
        }
        panels.collect(self.tiles.dbias, dtable);
    }
}

/// Collects pointers to the window's rows of a matrix; `padding` for padding.
fn place<T>(rows: &mut Vec<*const T>, window: &WindowTokens, from: &[T], width: usize, padding: *const T) {
    rows.clear();
    rows.extend(window.index.iter().map(|&token| match token {
        PADDING => padding,
        token => from[(window.first_token + token as usize) * width..][..width].as_ptr(),
    }));
}
