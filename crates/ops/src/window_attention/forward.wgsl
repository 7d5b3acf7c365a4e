// Attention inside windows, forward. A workgroup owns up to 64 query rows of one window and 32 channels of one head; thread i owns
// row i: its query, its running maximum and sum, and its part of y stay in registers. Keys and values pass through workgroup memory,
// 32 tokens at a time, so the scores never leave the registers. Rows are gathered by index: a window is never copied.
// A head wider than 32 channels has a workgroup for each 32 of y; the other channels of its scores come from global memory.
// The contract is in mod.rs, the geometry of windows in geometry.rs.

const WG = 64u;
const KEYS = 32u;              // tokens of a tile of keys and values
const WIDTH = 32u;             // channels of a row in workgroup memory
const SLOTS = 768u;            // rows of the bias table that fit into workgroup memory: windows up to 14 tokens wide
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
@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [N, C]
@group(0) @binding(4) var<uniform>             p: Params;

// 32 channels of a token; the ninth vector only puts rows into different banks.
struct Row { v: array<vec4f, 9> }
// The same in registers.
struct Lanes { a: mat4x4f, b: mat4x4f }
// Where a window is: its corner in the padded, shifted grid, and its image's first token.
struct Place { row: u32, col: u32, first: u32 }

var<workgroup> tile: array<Row, 64>;          // keys, then values; before and after them the rows of the threads
var<workgroup> key_token: array<u32, 32>;
var<workgroup> key_spot: array<u32, 32>;      // see spot()
var<workgroup> biases: array<f32, 768>;       // the head's column of the table

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

// Four columns, of which the first `count` exist.
fn four(token: u32, column: u32, count: u32) -> vec4f {
    if token != PADDING && count >= 4u {
        let i = p.qkv_first + token * 3u * p.channels + column;
        return vec4f(qkv[i], qkv[i + 1u], qkv[i + 2u], qkv[i + 3u]);
    }
    var v = vec4f();
    if count > 0u { v.x = value(token, column); }
    if count > 1u { v.y = value(token, column + 1u); }
    if count > 2u { v.z = value(token, column + 2u); }
    if count > 3u { v.w = value(token, column + 3u); }
    return v;
}

fn fetch(row: u32) -> Lanes {
    return Lanes(
        mat4x4f(tile[row].v[0], tile[row].v[1], tile[row].v[2], tile[row].v[3]),
        mat4x4f(tile[row].v[4], tile[row].v[5], tile[row].v[6], tile[row].v[7]),
    );
}

fn keep(row: u32, x: Lanes) {
    tile[row].v[0] = x.a[0];
    tile[row].v[1] = x.a[1];
    tile[row].v[2] = x.a[2];
    tile[row].v[3] = x.a[3];
    tile[row].v[4] = x.b[0];
    tile[row].v[5] = x.b[1];
    tile[row].v[6] = x.b[2];
    tile[row].v[7] = x.b[3];
}

fn inner(x: Lanes, y: Lanes) -> f32 {
    var s = x.a[0] * y.a[0];
    s += x.a[1] * y.a[1];
    s += x.a[2] * y.a[2];
    s += x.a[3] * y.a[3];
    s += x.b[0] * y.b[0];
    s += x.b[1] * y.b[1];
    s += x.b[2] * y.b[2];
    s += x.b[3] * y.b[3];
    return (s.x + s.y) + (s.z + s.w);
}

fn add(to: Lanes, factor: f32, x: Lanes) -> Lanes {
    return Lanes(to.a + factor * x.a, to.b + factor * x.b);
}

// q·k over the channels of the head that are not in the workgroup's chunk.
fn rest(query: u32, key: u32, head: u32, chunk: u32) -> f32 {
    var s = 0.0;
    for (var c = 0u; c < p.head_width; c++) {
        if c / WIDTH != chunk {
            let column = head * p.head_width + c;
            s += value(query, column) * value(key, p.channels + column);
        }
    }
    return s;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let g = wg.y * grid.x + wg.x;
    if g >= p.units * p.heads * p.chunks { return; }  // uniform: a whole workgroup leaves together
    let head = g % p.heads;
    let chunk = g / p.heads % p.chunks;
    let unit = g / p.heads / p.chunks;

    let area = p.window * p.window;
    let span = p.span;
    let cached = span * span <= SLOTS;
    let column = head * p.head_width + chunk * WIDTH;
    let width = min(WIDTH, p.head_width - chunk * WIDTH);
    // In a tile, eight neighboring threads fetch the 32 channels of a row.
    let quad = tid % 8u;
    let quad_column = column + 4u * quad;
    let quad_count = width - min(width, 4u * quad);

    let at = place(unit / p.row_blocks);
    let first = unit % p.row_blocks * p.block_rows;
    let rows = min(p.block_rows, area - first);
    // Threads beyond the last row repeat it, and store nothing.
    let mine = first + min(tid, rows - 1u);
    let my_token = token(at, mine);
    let my_spot = spot(at, mine);
    let my_region = my_spot >> 24u;
    let my_slot = (my_spot & 0xffffffu) + (span / 2u) * (span + 1u);

    if cached {
        for (var s = tid; s < span * span; s += WG) { biases[s] = table[s * p.heads + head]; }
    }
    for (var r = tid / 8u; r < WG; r += 8u) {
        tile[r].v[quad] = p.scale * four(token(at, first + min(r, rows - 1u)), quad_column, quad_count);
    }
    workgroupBarrier();  // the queries are complete
    let q = fetch(tid);
    workgroupBarrier();  // everyone has its query before keys overwrite it

    var out = Lanes();
    var top = NEVER;
    var sum = 0.0;
    for (var k0 = 0u; k0 < area; k0 += KEYS) {
        for (var r = tid / 8u; r < KEYS; r += 8u) {
            let key = token(at, min(k0 + r, area - 1u));
            tile[r].v[quad] = four(key, p.channels + quad_column, quad_count);
            tile[KEYS + r].v[quad] = four(key, 2u * p.channels + quad_column, quad_count);
        }
        if tid < KEYS {
            let t = min(k0 + tid, area - 1u);
            key_token[tid] = token(at, t);
            key_spot[tid] = spot(at, t);
        }
        workgroupBarrier();  // the tile is complete
        let count = min(KEYS, area - k0);
        for (var j = 0u; j < count; j += 4u) {
            var s = vec4f(inner(q, fetch(j)), inner(q, fetch(j + 1u)), inner(q, fetch(j + 2u)), inner(q, fetch(j + 3u)));
            if p.chunks > 1u {
                s += p.scale * vec4f(
                    rest(my_token, key_token[j], head, chunk),
                    rest(my_token, key_token[j + 1u], head, chunk),
                    rest(my_token, key_token[j + 2u], head, chunk),
                    rest(my_token, key_token[j + 3u], head, chunk),
                );
            }
            let spots = vec4u(key_spot[j], key_spot[j + 1u], key_spot[j + 2u], key_spot[j + 3u]);
            let slots = vec4u(my_slot) - (spots & vec4u(0xffffffu));
            if cached {
                s += vec4f(biases[slots.x], biases[slots.y], biases[slots.z], biases[slots.w]);
            } else {
                let i = slots * p.heads + head;
                s += vec4f(table[i.x], table[i.y], table[i.z], table[i.w]);
            }
            s += select(vec4f(), vec4f(MASK), (spots >> vec4u(24u)) != vec4u(my_region));
            s = select(vec4f(NEVER), s, vec4u(j, j + 1u, j + 2u, j + 3u) < vec4u(count));

            let higher = max(max(s.x, s.y), max(s.z, s.w));
            if higher > top {
                let shrink = exp(top - higher);
                out = Lanes(shrink * out.a, shrink * out.b);
                sum *= shrink;
                top = higher;
            }
            let e = exp(s - top);
            sum += (e.x + e.y) + (e.z + e.w);
            out = add(out, e.x, fetch(KEYS + j));
            out = add(out, e.y, fetch(KEYS + j + 1u));
            out = add(out, e.z, fetch(KEYS + j + 2u));
            out = add(out, e.w, fetch(KEYS + j + 3u));
        }
        workgroupBarrier();  // everyone has read the tile before the next one, or y, overwrites it
    }

    let norm = 1.0 / sum;
    keep(tid, Lanes(norm * out.a, norm * out.b));
    workgroupBarrier();  // the rows of y are complete
    for (var r = tid / 8u; r < rows; r += 8u) {
        let to = token(at, first + r);
        if to != PADDING {
            let v = tile[r].v[quad];
            let i = p.y_first + to * p.channels + quad_column;
            if quad_count > 0u { y[i] = v.x; }
            if quad_count > 1u { y[i + 1u] = v.y; }
            if quad_count > 2u { y[i + 2u] = v.z; }
            if quad_count > 3u { y[i + 3u] = v.w; }
        }
    }
}
