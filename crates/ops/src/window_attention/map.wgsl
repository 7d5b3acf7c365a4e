// The probabilities themselves, to look at. A workgroup owns one query row of one window and head; its threads stride over the keys.
// The helpers are those of forward.wgsl. The contract is in mod.rs.

const WG = 64u;
const PADDING = 0xffffffffu;   // a token that is none
const MASK = -100.0;           // what the reference adds between regions of a shifted grid
const NEVER = -1e30;           // the score of no token at all

struct Params {
    units: u32, units_each: u32, heads: u32, channels: u32,                    // a unit is a block of rows of a window
    head_width: u32, chunks: u32, window: u32, shift: u32,
    height: u32, width: u32, padded_height: u32, padded_width: u32,
    windows: u32, row_blocks: u32, block_rows: u32, has_bias: u32,
    qkv_first: u32, y_first: u32, dqkv_first: u32, partial_first: u32,         // words before the piece's first in each binding
    scale: f32, roll: u32, span: u32, pad: u32,                                // span is 2w − 1 of the bias table
}

@group(0) @binding(0) var<storage, read_write> qkv: array<f32>;       // [N, 3·C]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;     // [(2w−1)², H]
@group(0) @binding(2) var<storage, read_write> qkv_bias: array<f32>;  // [3·C]; not read without has_bias
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [windows, H, T, T]
@group(0) @binding(4) var<uniform>             p: Params;

// Where a window is: its corner in the padded, shifted grid, and its image's first token.
struct Place { row: u32, col: u32, first: u32 }

var<workgroup> shares: array<f32, 64>;

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

fn strip(at: u32, side: u32) -> u32 {
    if p.shift == 0u || at < side - p.window { return 0u; }
    return select(2u, 1u, at < side - p.shift);
}

// Token t's part of a bias table's row in the lower 24 bits, its region of the shifted grid above.
fn spot(at: Place, t: u32) -> u32 {
    let r = t / p.window;
    let c = t % p.window;
    let region = strip(at.row + r, p.padded_height) * 3u + strip(at.col + c, p.padded_width);
    return (r * p.span + c) | (region << 24u);
}

fn value(token: u32, column: u32) -> f32 {
    if token != PADDING { return qkv[p.qkv_first + token * 3u * p.channels + column]; }
    if p.has_bias != 0u { return qkv_bias[column]; }
    return 0.0;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let area = p.window * p.window;
    let span = p.span;
    let g = wg.y * grid.x + wg.x;
    if g >= p.units * p.heads * area { return; }  // uniform: a whole workgroup leaves together
    let i = g % area;
    let head = g / area % p.heads;
    let at = place(g / area / p.heads);
    let column = head * p.head_width;
    let query = token(at, i);
    let my_spot = spot(at, i);
    let my_slot = (my_spot & 0xffffffu) + (span / 2u) * (span + 1u);
    let row = p.y_first + g * area;

    // A thread writes its scores where the probabilities will be, and reads nobody else's.
    var top = NEVER;
    for (var j = tid; j < area; j += WG) {
        let key = token(at, j);
        let about = spot(at, j);
        var s = 0.0;
        for (var c = 0u; c < p.head_width; c++) { s += value(query, column + c) * value(key, p.channels + column + c); }
        s = p.scale * s + table[(my_slot - (about & 0xffffffu)) * p.heads + head];
        if (about >> 24u) != (my_spot >> 24u) { s += MASK; }
        y[row + j] = s;
        top = max(top, s);
    }
    shares[tid] = top;
    workgroupBarrier();  // every thread's highest is there
    for (var n = 0u; n < WG; n++) { top = max(top, shares[n]); }
    workgroupBarrier();  // everyone has read them before the sums overwrite them

    var sum = 0.0;
    for (var j = tid; j < area; j += WG) {
        let e = exp(y[row + j] - top);
        y[row + j] = e;
        sum += e;
    }
    shares[tid] = sum;
    workgroupBarrier();  // every thread's sum is there
    sum = 0.0;
    for (var n = 0u; n < WG; n++) { sum += shares[n]; }
    for (var j = tid; j < area; j += WG) { y[row + j] = y[row + j] / sum; }
}
