// Attention, forward: y and the logarithm of the sum of exponentials. A workgroup owns one query of one image and head: a thread scores
// every 64th key, then the threads share the channels of the values. The maximum moves from tile to tile of 64 keys. The contract is in
// mod.rs.

@group(0) @binding(4) var<storage, read_write> draws: array<u32>;  // [segments]; not read unless drawn
@group(0) @binding(5) var<storage, read_write> y: array<f32>;      // [queries, channels]
@group(0) @binding(6) var<storage, read_write> stats: array<f32>;  // [queries, heads]
@group(0) @binding(7) var<uniform>             p: Params;

var<workgroup> scores: array<f32, 64>;
var<workgroup> weights: array<f32, 64>;
var<workgroup> maxima: array<f32, 8>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let g = wg.y * grid.x + wg.x;
    if g >= p.images * p.heads * p.query_rows { return; }  // uniform: a whole workgroup leaves together
    let row = g % p.query_rows;
    let head = g / p.query_rows % p.heads;
    let image = g / p.query_rows / p.heads;
    var variant = 0u;
    if p.is_drawn != 0u { variant = draws[p.segment]; }
    let list = keys_of(variant, row);
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
    for (var first = 0u; first < list.count; first += WG) {
        let n = min(WG, list.count - first);
        var s = -1e30;
        if tid < n {
            let key = key_row(list, first + tid);
            s = score(query, key, keys + key * p.kv_width + p.key_column, bias_slot(list, first + tid), head);
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
        let weight = exp(s - higher);
        weights[tid] = weight;
        workgroupBarrier();  // the weights are there
        let shrink = exp(top - higher);
        sum = sum * shrink + weight;
        for (var a = 0u; a * WG < p.head_width; a++) { acc[a] *= shrink; }
        for (var k = tid / width; k < n; k += slices) {
            let w = weights[k];
            let key = key_row(list, first + k);
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
    let norm = select(0.0, 1.0 / sum, list.count > 0u);
    for (var a = 0u; a * WG < p.head_width; a++) {
        let c = tid + a * WG;
        if c < p.head_width { y[out + c] = norm * acc[a]; }
    }
    if tid == 0u {
        stats[p.stats_first + (image * p.query_rows + row) * p.heads + head] = select(0.0, top + log(sum), list.count > 0u);
    }
}
