// Rows of q, k, v and dy in workgroup memory and in registers. A workgroup owns up to 64 rows of one window and 32 channels of one head;
// thread i owns row i. Keys and values, or queries and their incoming gradients, pass through workgroup memory, 32 tokens at a time. A head
// wider than 32 channels has a workgroup for each 32 of the result; the other channels of its scores come from global memory.

const TILE = 32u;              // tokens of a tile
const WIDTH = 32u;             // channels of a row in workgroup memory
const SLOTS = 768u;            // rows of the bias table that fit into workgroup memory: windows up to 14 tokens wide

// 32 channels of a token; the ninth vector only puts rows into different banks.
struct Row { v: array<vec4f, 9> }
// A row in registers.
struct Lanes { a: mat4x4f, b: mat4x4f }

var<workgroup> tile: array<Row, 64>;          // two rows for each token of a tile; before and after them the rows of the threads
var<workgroup> tile_token: array<u32, 32>;
var<workgroup> tile_spot: array<u32, 32>;     // see spot()
var<workgroup> biases: array<f32, 768>;       // the head's column of the table

// In a tile, eight neighboring threads copy the 32 channels of a row: four columns each, of which `count` exist.
struct Quad { index: u32, column: u32, count: u32 }

fn quad_of(tid: u32, head: u32, chunk: u32) -> Quad {
    let width = min(WIDTH, p.head_width - chunk * WIDTH);
    let index = tid % 8u;
    return Quad(index, head * p.head_width + chunk * WIDTH + 4u * index, width - min(width, 4u * index));
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

// The workgroup loads the head's column of the bias table, which must fit.
fn load_biases(tid: u32, head: u32) {
    for (var s = tid; s < p.span * p.span; s += WG) { biases[s] = table[s * p.heads + head]; }
}

// The workgroup loads the keys and values of tokens k0..k0 + TILE; the last token stands for those beyond it.
fn load_keys(tid: u32, at: Place, k0: u32, quad: Quad) {
    let last = p.window * p.window - 1u;
    for (var r = tid / 8u; r < TILE; r += 8u) {
        let key = token(at, min(k0 + r, last));
        tile[r].v[quad.index] = four(key, p.channels + quad.column, quad.count);
        tile[TILE + r].v[quad.index] = four(key, 2u * p.channels + quad.column, quad.count);
    }
    if tid < TILE {
        let t = min(k0 + tid, last);
        tile_token[tid] = token(at, t);
        tile_spot[tid] = spot(at, t);
    }
}

// Reads a row of the tile.
fn fetch(row: u32) -> Lanes {
    return Lanes(
        mat4x4f(tile[row].v[0], tile[row].v[1], tile[row].v[2], tile[row].v[3]),
        mat4x4f(tile[row].v[4], tile[row].v[5], tile[row].v[6], tile[row].v[7]),
    );
}

// Writes a row of the tile.
fn put(row: u32, x: Lanes) {
    tile[row].v[0] = x.a[0];
    tile[row].v[1] = x.a[1];
    tile[row].v[2] = x.a[2];
    tile[row].v[3] = x.a[3];
    tile[row].v[4] = x.b[0];
    tile[row].v[5] = x.b[1];
    tile[row].v[6] = x.b[2];
    tile[row].v[7] = x.b[3];
}

// x·y over the lanes.
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

// to + factor·x.
fn add(to: Lanes, factor: f32, x: Lanes) -> Lanes {
    return Lanes(to.a + factor * x.a, to.b + factor * x.b);
}
