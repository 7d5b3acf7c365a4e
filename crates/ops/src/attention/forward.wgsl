// y and the logarithm of the sum, for one query of one image and head in each workgroup. A thread scores every 64th key; then the threads
// share the channels of the values. The maximum moves from tile to tile of 64 keys. The contract is in mod.rs.

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
@group(0) @binding(5) var<storage, read_write> y: array<f32>;      // [queries, channels]
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;  // [queries, heads]
@group(0) @binding(7) var<uniform>             p: Params;

var<workgroup> scores: array<f32, 64>;
var<workgroup> weights: array<f32, 64>;
var<workgroup> maxima: array<f32, 8>;

// Lanes that share a head's channels, a power of two; where they are fewer than a workgroup has, its slices share the rows of a tile.
fn lanes() -> u32 {
    var n = 8u;
    while n < min(p.head_width, WG) { n *= 2u; }
    return n;
}

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
    let g = wg.y * grid.x + wg.x;
    if g >= p.images * p.heads * p.query_rows { return; }  // uniform: a whole workgroup leaves together
    let row = g % p.query_rows;
    let head = g / p.query_rows % p.heads;
    let image = g / p.query_rows / p.heads;
    var variant = 0u;
    if p.is_drawn != 0u { variant = draws[p.segment]; }
    let about = table[2u * variant] + 4u * row;
    let list = table[about];
    let count = table[about + 1u];
    let my_slot = table[about + 2u];
    let absolute = table[about + 3u];
    let column = head * p.head_width;
    let query = p.q_first + (image * p.query_rows + row) * p.q_width + column;
    let keys = p.kv_first + image * p.key_rows * p.kv_width + column;
    let out = p.y_first + (image * p.query_rows + row) * p.channels + column;

    let width = lanes();
    let slices = WG / width;
    let lane = tid % width;
    var top = -1e30;
    var sum = 0.0;              // of the weights this thread has scored
    var acc = array<f32, 4>();  // channels lane, lane + 64 …; heads are at most 256 wide
    for (var first = 0u; first < count; first += WG) {
        let n = min(WG, count - first);
        var s = -1e30;
        if tid < n {
            let key = table[list + 2u * (first + tid)];
            let slot = table[list + 2u * (first + tid) + 1u] + select(my_slot, 0u, first + tid < absolute);
            s = score(query, key, keys + key * p.kv_width + p.key_column, slot, head);
        }
        scores[tid] = s;
        workgroupBarrier();  // the scores of the tile are there
        if tid < 8u {
            var m = scores[tid];
            for (var k = 1u; k < 8u; k++) { m = max(m, scores[tid + 8u * k]); }
            maxima[tid] = m;
        }
        workgroupBarrier();  // the maxima are there
        var higher = top;
        for (var k = 0u; k < 8u; k++) { higher = max(higher, maxima[k]); }
        let own = exp(s - higher);
        weights[tid] = own;
        workgroupBarrier();  // the weights are there
        let shrink = exp(top - higher);
        sum = sum * shrink + own;
        for (var a = 0u; a * WG < p.head_width; a++) { acc[a] *= shrink; }
        for (var k = tid / width; k < n; k += slices) {
            let w = weights[k];
            let key = table[list + 2u * (first + k)];
            if key != PADDING {
                let value = keys + key * p.kv_width + p.value_column;
                for (var a = 0u; a * WG < p.head_width; a++) {
                    let c = lane + a * WG;
                    if c < p.head_width { acc[a] += w * kv[value + c]; }
                }
            }
        }
        top = higher;
        workgroupBarrier();  // everyone has read the weights before the next tile's overwrite them
    }
    weights[tid] = sum;
    scores[tid] = acc[0];
    workgroupBarrier();  // the threads' sums are there
    sum = 0.0;
    for (var k = 0u; k < WG; k++) { sum += weights[k]; }
    for (var slice = 1u; slice < slices; slice++) { acc[0] += scores[(tid + slice * width) % WG]; }
    let norm = select(0.0, 1.0 / sum, count > 0u);
    for (var a = 0u; a * WG < p.head_width; a++) {
        let c = tid + a * WG;
        if c < p.head_width { y[out + c] = norm * acc[a]; }
    }
    if tid == 0u {
        stats[p.stats_first + (image * p.query_rows + row) * p.heads + head] = select(0.0, top + log(sum), count > 0u);
    }
}
