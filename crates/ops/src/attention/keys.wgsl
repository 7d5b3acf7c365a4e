// dk and dv, for one key of one image and head in each workgroup. For every group that sees the key, a thread scores every 64th query; then
// the threads share the channels. The contract is in mod.rs.

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
@group(0) @binding(6) var<storage, read_write> dkv: array<f32>;    // [keys, kv_width]: from key_column and value_column
@group(0) @binding(7) var<uniform>             p: Params;

var<workgroup> slopes: array<f32, 64>;
var<workgroup> shares: array<f32, 64>;

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
    if g >= p.images * p.heads * p.key_rows { return; }  // uniform: a whole workgroup leaves together
    let row = g % p.key_rows;
    let head = g / p.key_rows % p.heads;
    let image = g / p.key_rows / p.heads;
    let column = head * p.head_width;
    let key = p.kv_first + (image * p.key_rows + row) * p.kv_width + column;
    let about = table[2u * u32(prepared[0]) + 1u] + 2u * row;
    let width = lanes();
    let slices = WG / width;
    let lane = tid % width;
    var dk = array<f32, 4>();
    var dv = array<f32, 4>();
    for (var e = 0u; e < table[about + 1u]; e++) {
        let group = table[about] + 4u * e;
        let list = table[group];
        let count = table[group + 1u];
        for (var first = 0u; first < count; first += WG) {
            let n = min(WG, count - first);
            if tid < n {
                let at = list + 2u * (first + tid);
                let unit = image * p.query_rows + table[at];
                let slot = table[group + 2u] + select(table[at + 1u], 0u, table[group + 3u] != 0u);
                let log_sum = prepared[1u + 2u * (unit * p.heads + head)];
                let share = exp(score(p.q_first + unit * p.q_width + column, 0u, key + p.key_column, slot, head) - log_sum);
                let incoming = p.y_first + unit * p.channels + column;
                var slope = 0.0;
                for (var c = 0u; c < p.head_width; c++) { slope += dy[incoming + c] * kv[key + p.value_column + c]; }
                shares[tid] = share;
                slopes[tid] = share * (slope - prepared[2u + 2u * (unit * p.heads + head)]);
            }
            workgroupBarrier();  // the tile of queries is there
            for (var k = tid / width; k < n; k += slices) {
                let unit = image * p.query_rows + table[list + 2u * (first + k)];
                for (var a = 0u; a * WG < p.head_width; a++) {
                    let c = lane + a * WG;
                    if c < p.head_width {
                        dk[a] += slopes[k] * q[p.q_first + unit * p.q_width + column + c];
                        dv[a] += shares[k] * dy[p.y_first + unit * p.channels + column + c];
                    }
                }
            }
            workgroupBarrier();  // everyone has read the tile before the next one overwrites it
        }
    }
    slopes[tid] = dk[0];
    shares[tid] = dv[0];
    workgroupBarrier();  // the slices' sums are there
    for (var slice = 1u; slice < slices; slice++) {
        dk[0] += slopes[(tid + slice * width) % WG];
        dv[0] += shares[(tid + slice * width) % WG];
    }
    let to = p.dkv_first + (image * p.key_rows + row) * p.kv_width + column;
    for (var a = 0u; a * WG < p.head_width; a++) {
        let c = tid + a * WG;
        if c < p.head_width {
            dkv[to + p.key_column + c] = p.scale * dk[a];
            dkv[to + p.value_column + c] = dv[a];
        }
    }
}
