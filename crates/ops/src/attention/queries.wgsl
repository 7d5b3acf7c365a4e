// Attention, backward: dq, and sums of the bias gradient. A workgroup owns some queries of one head, one after the other: a thread scores
// every 64th key, then the threads share the channels. Keys of one query have different rows of the bias, so no two threads add to the same
// one. The contract is in mod.rs.

@group(0) @binding(4) var<storage, read_write> row_stats: array<f32>;  // see row_stats.wgsl
@group(0) @binding(5) var<storage, read_write> dy: array<f32>;     // [queries, channels]
@group(0) @binding(6) var<storage, read_write> dq: array<f32>;      // [queries, q_width]: its first channels
@group(0) @binding(7) var<storage, read_write> partial: array<f32>;  // [workgroups / heads, bias_rows, heads]
@group(0) @binding(8) var<uniform>             p: Params;

var<workgroup> tile_ds: array<f32, 64>;
var<workgroup> slice_sums: array<f32, 64>;

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
        let list = keys_of(u32(row_stats[0]), row);
        let query = p.q_first + unit * p.q_width + column;
        let incoming = p.y_first + unit * p.channels + column;
        let keys = p.kv_first + image * p.key_rows * p.kv_width + column;
        let log_sum = row_stats[1u + 2u * (unit * p.heads + head)];
        let along = row_stats[2u + 2u * (unit * p.heads + head)];
        var acc = array<f32, 4>();
        for (var first = 0u; first < list.count; first += WG) {
            let n = min(WG, list.count - first);
            if tid < n {
                let key = key_row(list, first + tid);
                let slot = bias_slot(list, first + tid);
                let at = keys + key * p.kv_width;
                let prob = exp(score(query, key, at + p.key_column, slot, head) - log_sum);
                var dp = 0.0;
                if key != PADDING {
                    for (var c = 0u; c < p.head_width; c++) { dp += dy[incoming + c] * kv[at + p.value_column + c]; }
                }
                let ds = prob * (dp - along);
                tile_ds[tid] = ds;
                if p.bias_rows != 0u { partial[sums + slot * p.heads] += ds; }
            }
            workgroupBarrier();  // dS of the tile is there
            for (var k = tid / width; k < n; k += slices) {
                let key = key_row(list, first + k);
                if key != PADDING {
                    let at = keys + key * p.kv_width + p.key_column;
                    for (var a = 0u; a * WG < p.head_width; a++) {
                        let c = lane + a * WG;
                        if c < p.head_width { acc[a] += tile_ds[k] * kv[at + c]; }
                    }
                }
            }
            workgroupBarrier();  // everyone has read dS before the next tile's overwrites it
        }
        slice_sums[tid] = acc[0];
        workgroupBarrier();  // the slices' sums are there
        for (var slice = 1u; slice < slices; slice++) { acc[0] += slice_sums[(tid + slice * width) % WG]; }
        let to = p.dq_first + unit * p.q_width + column;
        for (var a = 0u; a * WG < p.head_width; a++) {
            let c = tid + a * WG;
            if c < p.head_width { dq[to + c] = p.scale * acc[a]; }
        }
        storageBarrier();  // this query's sums are there before another thread adds the next one's
    }
}
