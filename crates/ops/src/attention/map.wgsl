// The probabilities themselves, to look at. One thread owns the row of one query of one image and head. The contract is in mod.rs.

const WG = 64u;
const PADDING = 0xffffffffu;   // a key that is zero

struct Params {
    images: u32, heads: u32, channels: u32, head_width: u32,
    query_rows: u32, key_rows: u32, q_width: u32, kv_width: u32,               // rows of an image; columns of the operands
    key_column: u32, value_column: u32, bias_rows: u32, segment: u32,
    units_each: u32, q_first: u32, kv_first: u32, y_first: u32,                // words before the piece's first in each binding
    dq_first: u32, dkv_first: u32, stats_first: u32, partial_first: u32,
    scale: f32, is_drawn: u32, pad0: u32, pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> q: array<f32>;      // [queries, q_width]
@group(0) @binding(1) var<storage, read_write> kv: array<f32>;     // [keys, kv_width]
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;   // [bias_rows, heads]; not read without rows
@group(0) @binding(3) var<storage, read_write> table: array<u32>;  // who attends to whom: see gpu.rs
@group(0) @binding(4) var<storage, read_write> draws: array<u32>;  // [segments]; not read unless drawn
@group(0) @binding(5) var<storage, read_write> y: array<f32>;      // [images, heads, query_rows, key_rows]
@group(0) @binding(6) var<uniform>             p: Params;

// The score of a query at word `query` of q and of a key: k's word is not read for padding.
fn score(query: u32, row: u32, key: u32, slot: u32, head: u32) -> f32 {
    var s = 0.0;
    if row != PADDING {
        for (var c = 0u; c < p.head_width; c++) { s += q[query + c] * kv[key + c]; }
    }
    s *= p.scale;
    if p.bias_rows != 0u { s += bias[slot * p.heads + head]; }
    return s;
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let g = (wg.y * grid.x + wg.x) * WG + tid;
    if g >= p.images * p.heads * p.query_rows { return; }
    let row = g % p.query_rows;
    let head = g / p.query_rows % p.heads;
    let image = g / p.query_rows / p.heads;
    var variant = 0u;
    if p.is_drawn != 0u { variant = draws[p.segment]; }
    let about = table[2u * variant] + 4u * row;
    let list = table[about];
    let count = table[about + 1u];
    let query = p.q_first + (image * p.query_rows + row) * p.q_width + head * p.head_width;
    let keys = p.kv_first + image * p.key_rows * p.kv_width + head * p.head_width + p.key_column;
    let to = p.y_first + g * p.key_rows;
    for (var k = 0u; k < p.key_rows; k++) { y[to + k] = 0.0; }
    var top = -1e30;
    var sum = 0.0;
    // Two walks: the sum first, moving its maximum along; then the shares. A token seen twice has the sum of both.
    for (var walk = 0u; walk < 2u; walk++) {
        for (var k = 0u; k < count; k++) {
            let key = table[list + 2u * k];
            let slot = table[list + 2u * k + 1u] + select(table[about + 2u], 0u, k < table[about + 3u]);
            let s = score(query, key, keys + key * p.kv_width, slot, head);
            if walk == 0u {
                let higher = max(top, s);
                sum = sum * exp(top - higher) + exp(s - higher);
                top = higher;
            } else if key != PADDING {
                y[to + key] += exp(s - top) / sum;
            }
        }
    }
}
