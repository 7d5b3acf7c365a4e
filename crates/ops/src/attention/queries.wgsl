// dq, and sums of the bias gradient. A workgroup takes some queries of one head, one after the other: a thread scores every 64th key, then
// the threads share the channels. Keys of one query have different rows of the bias, so no two threads add to the same. The contract is in
// mod.rs.

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
@group(0) @binding(4) var<storage, read_write> prepared: array<f32>;  // see prepare.wgsl
@group(0) @binding(5) var<storage, read_write> dy: array<f32>;     // [queries, channels]
@group(0) @binding(6) var<storage, read_write> dq: array<f32>;      // [queries, q_width]: its first channels
@group(0) @binding(7) var<storage, read_write> partial: array<f32>;  // [workgroups / heads, bias_rows, heads]
@group(0) @binding(8) var<uniform>             p: Params;

var<workgroup> slopes: array<f32, 64>;
var<workgroup> parts: array<f32, 64>;

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
    let head = g % p.heads;
    let block = g / p.heads;
    let units = p.images * p.query_rows;
    if block * p.units_each >= units { return; }  // uniform: a whole workgroup leaves together
    let width = lanes();
    let slices = WG / width;
    let lane = tid % width;
    let column = head * p.head_width;
    let sums = p.partial_first + block * p.bias_rows * p.heads + head;
    for (var r = tid; r < p.bias_rows; r += WG) { partial[sums + r * p.heads] = 0.0; }
    storageBarrier();  // the sums are zero

    let last = min(units, (block + 1u) * p.units_each);
    for (var unit = block * p.units_each; unit < last; unit++) {
        let row = unit % p.query_rows;
        let image = unit / p.query_rows;
        let about = table[2u * u32(prepared[0])] + 4u * row;
        let list = table[about];
        let count = table[about + 1u];
        let my_slot = table[about + 2u];
        let absolute = table[about + 3u];
        let query = p.q_first + unit * p.q_width + column;
        let incoming = p.y_first + unit * p.channels + column;
        let keys = p.kv_first + image * p.key_rows * p.kv_width + column;
        let log_sum = prepared[1u + 2u * (unit * p.heads + head)];
        let along = prepared[2u + 2u * (unit * p.heads + head)];
        var acc = array<f32, 4>();
        for (var first = 0u; first < count; first += WG) {
            let n = min(WG, count - first);
            if tid < n {
                let key = table[list + 2u * (first + tid)];
                let slot = table[list + 2u * (first + tid) + 1u] + select(my_slot, 0u, first + tid < absolute);
                let at = keys + key * p.kv_width;
                let share = exp(score(query, key, at + p.key_column, slot, head) - log_sum);
                var slope = 0.0;
                if key != PADDING {
                    for (var c = 0u; c < p.head_width; c++) { slope += dy[incoming + c] * kv[at + p.value_column + c]; }
                }
                slope = share * (slope - along);
                slopes[tid] = slope;
                if p.bias_rows != 0u { partial[sums + slot * p.heads] += slope; }
            }
            workgroupBarrier();  // the slopes of the tile are there
            for (var k = tid / width; k < n; k += slices) {
                let key = table[list + 2u * (first + k)];
                if key != PADDING {
                    let at = keys + key * p.kv_width + p.key_column;
                    for (var a = 0u; a * WG < p.head_width; a++) {
                        let c = lane + a * WG;
                        if c < p.head_width { acc[a] += slopes[k] * kv[at + c]; }
                    }
                }
            }
            workgroupBarrier();  // everyone has read the slopes before the next tile's overwrite them
        }
        parts[tid] = acc[0];
        workgroupBarrier();  // the slices' sums are there
        for (var slice = 1u; slice < slices; slice++) { acc[0] += parts[(tid + slice * width) % WG]; }
        let to = p.dq_first + unit * p.q_width + column;
        for (var a = 0u; a * WG < p.head_width; a++) {
            let c = tid + a * WG;
            if c < p.head_width { dq[to + c] = p.scale * acc[a]; }
        }
        storageBarrier();  // this query's sums are there before another thread adds the next one's
    }
}
