//! Kernels of attention inside windows, and their dispatches over pieces of the images.

use bytemuck::{Pod, Zeroable};
use esvit_gpu::{Grid, Kernel, Recorder, View, reduce};
use esvit_graph::{GpuIo, Result};

use super::geometry::{WindowGeometry, WindowGrid};

/// Mirrors `Params` in `windows.wgsl`.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Params {
    units: u32,
    units_each: u32,
    heads: u32,
    channels: u32,
    head_width: u32,
    chunks: u32,
    window: u32,
    shift: u32,
    height: u32,
    width: u32,
    padded_height: u32,
    padded_width: u32,
    windows: u32,
    row_blocks: u32,
    block_rows: u32,
    has_bias: u32,
    qkv_first: u32,
    y_first: u32,
    dqkv_first: u32,
    partial_first: u32,
    scale: f32,
    roll: u32,
    span: u32,
    pad: u32,
}

const WINDOWS: &str = include_str!("windows.wgsl");
const ROWS: &str = include_str!("rows.wgsl");
const BACKWARD: &str = include_str!("backward.wgsl");

static FORWARD: Kernel = Kernel::new::<Params>("window_attention", &[include_str!("forward.wgsl"), ROWS, WINDOWS], "main", 4);
static QUERIES: Kernel =
    Kernel::new::<Params>("window_attention_dq", &[include_str!("backward_queries.wgsl"), BACKWARD, ROWS, WINDOWS], "main", 7);
static KEYS: Kernel =
    Kernel::new::<Params>("window_attention_dkv", &[include_str!("backward_keys.wgsl"), BACKWARD, ROWS, WINDOWS], "main", 7);
static MAP: Kernel = Kernel::new::<Params>("attention_map", &[include_str!("map.wgsl"), WINDOWS], "main", 4);

pub(crate) static KERNELS: &[&Kernel] = &[&FORWARD, &QUERIES, &KEYS, &MAP];

/// Threads of a workgroup, each with a row of a window.
const ROWS_EACH: usize = 64;
/// Channels of a workgroup.
const CHUNK: usize = 32;
/// Workgroups of a backward dispatch: enough for a large GPU; each leaves a sum of the table's gradient.
const BUSY: usize = 4096;

/// Images of one dispatch.
struct WindowPiece {
    params: Params,
    /// Row of the first token, and number of tokens.
    tokens: (usize, usize),
    /// The first window over all segments, and number of windows.
    windows: (usize, usize),
}

impl WindowPiece {
    /// The images' rows of a matrix with a row for every token.
    fn matrix(&self, rec: &Recorder, view: &View, cols: usize) -> (View, u32) {
        rec.aligned(view, self.tokens.0 * cols, self.tokens.1 * cols)
    }
}

/// Cuts the images of every segment; `window_words` is what a window has in the longest operand besides tokens.
fn pieces(
    geometry: &WindowGeometry,
    heads: usize,
    three_c: usize,
    has_bias: bool,
    window_words: usize,
    rec: &Recorder,
) -> Vec<WindowPiece> {
    let (c, area) = (three_c / 3, geometry.area);
    let row_blocks = area.div_ceil(ROWS_EACH);
    let mut pieces = Vec::new();
    let mut first_window = 0;
    for grid in &geometry.grids {
        let image_words = (grid.tokens_per_image * three_c).max(grid.windows * window_words);
        for images in rec.image_pieces(grid.images, 4 * image_words) {
            let windows = images.len() * grid.windows;
            let [padded_height, padded_width] = grid.padded(geometry.window);
            let params = Params {
                units: (windows * row_blocks) as u32,
                units_each: 1,
                heads: heads as u32,
                channels: c as u32,
                head_width: (c / heads) as u32,
                chunks: (c / heads).div_ceil(CHUNK) as u32,
                window: geometry.window as u32,
                shift: geometry.shift as u32,
                height: grid.height as u32,
                width: grid.width as u32,
                padded_height: padded_height as u32,
                padded_width: padded_width as u32,
                windows: grid.windows as u32,
                row_blocks: row_blocks as u32,
                block_rows: area.div_ceil(row_blocks) as u32,
                has_bias: has_bias.into(),
                scale: geometry.scale(c / heads),
                roll: geometry.roll as u32,
                span: geometry.span as u32,
                ..Params::zeroed()
            };
            let tokens = (grid.first_token + images.start * grid.tokens_per_image, images.len() * grid.tokens_per_image);
            pieces.push(WindowPiece { params, tokens, windows: (first_window + images.start * grid.windows, windows) });
        }
        first_window += grid.images * grid.windows;
    }
    pieces
}

pub(super) fn forward(geometry: &WindowGeometry, heads: usize, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, three_c) = io.matrix(0);
    let (table, bias) = (&io.inputs[1], io.inputs.get(2));
    for piece in pieces(geometry, heads, three_c, bias.is_some(), 0, rec) {
        let (qkv, qkv_first) = piece.matrix(rec, &io.inputs[0], three_c);
        let (y, y_first) = piece.matrix(rec, &io.outputs[0], three_c / 3);
        let params = Params { qkv_first, y_first, ..piece.params };
        let groups = params.units as usize * heads * params.chunks as usize;
        rec.dispatch(&FORWARD, &[&qkv, table, bias.unwrap_or(table), &y], &params, Grid::fold(groups))?;
    }
    Ok(())
}

pub(super) fn maps(geometry: &WindowGeometry, heads: usize, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, three_c) = io.matrix(0);
    let (table, bias) = (&io.inputs[1], io.inputs.get(2));
    let map_words = heads * geometry.area * geometry.area;
    for piece in pieces(geometry, heads, three_c, bias.is_some(), map_words, rec) {
        let (qkv, qkv_first) = piece.matrix(rec, &io.inputs[0], three_c);
        let (first, windows) = piece.windows;
        let (y, y_first) = rec.aligned(&io.outputs[0], first * map_words, windows * map_words);
        // A workgroup for every row: no blocks of rows.
        let params = Params { units: windows as u32, qkv_first, y_first, ..piece.params };
        rec.dispatch(&MAP, &[&qkv, table, bias.unwrap_or(table), &y], &params, Grid::fold(windows * heads * geometry.area))?;
    }
    Ok(())
}

pub(super) fn gradient(geometry: &WindowGeometry, heads: usize, io: &GpuIo, rec: &mut Recorder) -> Result<()> {
    let (_, three_c) = io.matrix(0);
    let (table, dy) = (&io.inputs[1], &io.inputs[io.inputs.len() - 1]);
    let bias = (io.inputs.len() == 4).then(|| &io.inputs[2]);
    let stats_words = 2 * heads * geometry.area;
    let table_words = geometry.table_rows() * heads;
    let pieces = pieces(geometry, heads, three_c, bias.is_some(), stats_words, rec);

    // Blocks of a piece's rows of windows; each leaves a sum of the table's gradient, and one of the padding's.
    let blocks = |params: &Params| {
        let units = params.units as usize;
        let each = units.div_ceil((BUSY / (heads * params.chunks as usize)).clamp(1, units));
        (each, units.div_ceil(each))
    };
    let total: usize = pieces.iter().map(|piece| blocks(&piece.params).1).sum();
    let most_windows = pieces.iter().map(|piece| piece.windows.1).max().unwrap_or(0);
    let stats = rec.scratch((4 * most_windows * stats_words) as u64);
    let of_table = rec.scratch((4 * total * table_words) as u64);
    let of_bias = bias.map(|_| rec.scratch((4 * total * three_c) as u64));

    let mut done = 0;
    for piece in &pieces {
        let (each, blocks) = blocks(&piece.params);
        let (qkv, qkv_first) = piece.matrix(rec, &io.inputs[0], three_c);
        let (dy, y_first) = piece.matrix(rec, dy, three_c / 3);
        let (dqkv, dqkv_first) = piece.matrix(rec, &io.outputs[0], three_c);
        let (table_part, partial_first) = rec.aligned(&of_table, done * table_words, blocks * table_words);
        let params = Params { units_each: each as u32, qkv_first, y_first, dqkv_first, partial_first, ..piece.params };
        let grid = Grid::fold(blocks * heads * params.chunks as usize);
        rec.dispatch(&QUERIES, &[&qkv, table, bias.unwrap_or(table), &dy, &dqkv, &stats, &table_part], &params, grid)?;

        // Without a bias nothing is written there.
        let (bias_part, partial_first) = match &of_bias {
            Some(view) => rec.aligned(view, done * three_c, blocks * three_c),
            None => (table_part, 0),
        };
        let params = Params { partial_first, ..params };
        rec.dispatch(&KEYS, &[&qkv, table, bias.unwrap_or(table), &dy, &dqkv, &stats, &bias_part], &params, grid)?;
        done += blocks;
    }
    reduce::column_sum(rec, &of_table, &io.outputs[1], total, table_words)?;
    if let Some(of_bias) = &of_bias {
        reduce::column_sum(rec, of_bias, &io.outputs[2], total, three_c)?;
    }
    Ok(())
}

impl WindowGrid {
    /// Height and width with the padding.
    fn padded(&self, window: usize) -> [usize; 2] {
        [self.height.next_multiple_of(window), self.width.next_multiple_of(window)]
    }
}
