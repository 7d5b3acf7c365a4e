// Geometry of shifted windows, and the operands of every kernel that attends inside them. The contract is in mod.rs, the plain version of
// the geometry in geometry.rs.

const WG = 64u;
const PADDING = 0xffffffffu;   // a token that is none
const MASK = -100.0;           // what the original adds between regions of a shifted grid
const NEVER = -1e30;           // the score of no token at all

struct Params {
    units: u32, units_each: u32, heads: u32, channels: u32,                    // a unit is a block of rows of a window
    head_width: u32, chunks: u32, window: u32, shift: u32,
    height: u32, width: u32, padded_height: u32, padded_width: u32,
    windows: u32, row_blocks: u32, block_rows: u32, has_bias: u32,
    qkv_first: u32, y_first: u32, dqkv_first: u32, partial_first: u32,         // words before the piece's first in each binding; y: or dy
    scale: f32, roll: u32, span: u32, pad: u32,                                // span is 2w − 1 of the bias table
}

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;       // [N, 3·C]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;     // [(2w−1)², H]
@group(0) @binding(2) var<storage, read_write> qkv_bias: array<f32>;  // [3·C]; not read without has_bias

// Where a window is: its corner in the padded, shifted grid, and its image's first token.
struct Place { row: u32, col: u32, first: u32 }

// Place of window n, counted over the images of the piece.
fn place(n: u32) -> Place {
    let image = n / p.windows;
    let w = n % p.windows;
    let cols = p.padded_width / p.window;
    return Place(w / cols * p.window, w % cols * p.window, image * p.height * p.width);
}

// Token t of the window: its row in the bindings, or PADDING.
fn token(at: Place, t: u32) -> u32 {
    var r = at.row + t / p.window + p.roll;
    var c = at.col + t % p.window + p.roll;
    r -= select(0u, p.padded_height, r >= p.padded_height);
    c -= select(0u, p.padded_width, c >= p.padded_width);
    return select(PADDING, at.first + r * p.width + c, r < p.height && c < p.width);
}

// Region of a row or column: the grid is cut at −window and −shift of each axis.
fn axis_region(at: u32, side: u32) -> u32 {
    if p.shift == 0u || at < side - p.window { return 0u; }
    return select(2u, 1u, at < side - p.shift);
}

// Token t's part of a bias table's row in the lower 24 bits, its region of the shifted grid above.
fn spot(at: Place, t: u32) -> u32 {
    let r = t / p.window;
    let c = t % p.window;
    let region = axis_region(at.row + r, p.padded_height) * 3u + axis_region(at.col + c, p.padded_width);
    return (r * p.span + c) | (region << 24u);
}

// A column of a token; padding holds the bias.
fn value(token: u32, column: u32) -> f32 {
    if token != PADDING { return qkv[p.qkv_first + token * 3u * p.channels + column]; }
    if p.has_bias != 0u { return qkv_bias[column]; }
    return 0.0;
}
