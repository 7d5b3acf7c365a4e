// Attention, backward: dk and dv. A workgroup owns one key of one image and head: for every group that sees the key, a thread scores every
// 64th query, then the threads share the channels. The contract is in mod.rs.

@group(0) @binding(4) var<storage, read_write> row_stats: array<f32>;  // see row_stats.wgsl
@group(0) @binding(5) var<storage, read_write> dy: array<f32>;     // [queries, channels]
@group(0) @binding(6) var<storage, read_write> dkv: array<f32>;    // [keys, kv_width]: from key_column and value_column
@group(0) @binding(7) var<uniform>             p: Params;

var<workgroup> tile_ds: array<f32, 64>;
var<workgroup> tile_probs: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let g = wg.y * grid.x + wg.x;
    if g >= p.images * p.heads * p.key_rows { return; }  // uniform: a whole workgroup leaves together
    let row = g % p.key_rows;
    let head = g / p.key_rows % p.heads;
    let image = g / p.key_rows / p.heads;
    let column = head * p.head_width;
    let key = p.kv_first + (image * p.key_rows + row) * p.kv_width + column;
    let about = table[2u * u32(row_stats[0]) + 1u] + 2u * row;
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
                let log_sum = row_stats[1u + 2u * (unit * p.heads + head)];
                let prob = exp(score(p.q_first + unit * p.q_width + column, 0u, key + p.key_column, slot, head) - log_sum);
                let incoming = p.y_first + unit * p.channels + column;
                var dp = 0.0;
                for (var c = 0u; c < p.head_width; c++) { dp += dy[incoming + c] * kv[key + p.value_column + c]; }
                tile_probs[tid] = prob;
                tile_ds[tid] = prob * (dp - row_stats[2u + 2u * (unit * p.heads + head)]);
            }
            workgroupBarrier();  // the tile of queries is there
            for (var k = tid / width; k < n; k += slices) {
                let unit = image * p.query_rows + table[list + 2u * (first + k)];
                for (var a = 0u; a * WG < p.head_width; a++) {
                    let c = lane + a * WG;
                    if c < p.head_width {
                        dk[a] += tile_ds[k] * q[p.q_first + unit * p.q_width + column + c];
                        dv[a] += tile_probs[k] * dy[p.y_first + unit * p.channels + column + c];
                    }
                }
            }
            workgroupBarrier();  // everyone has read the tile before the next one overwrites it
        }
    }
    tile_ds[tid] = dk[0];
    tile_probs[tid] = dv[0];
    workgroupBarrier();  // the slices' sums are there
    for (var slice = 1u; slice < slices; slice++) {
        dk[0] += tile_ds[(tid + slice * width) % WG];
        dv[0] += tile_probs[(tid + slice * width) % WG];
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
