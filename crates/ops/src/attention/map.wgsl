// Attention, its probabilities to look at. One thread owns the row of one query of one image and head. The contract is in mod.rs.

@group(0) @binding(4) var<storage, read_write> draws: array<u32>;  // [segments]; not read unless drawn
@group(0) @binding(5) var<storage, read_write> y: array<f32>;      // [images, heads, query_rows, key_rows]
@group(0) @binding(6) var<uniform>             p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let g = (wg.y * grid.x + wg.x) * WG + tid;
    if g >= p.images * p.heads * p.query_rows { return; }
    let row = g % p.query_rows;
    let head = g / p.query_rows % p.heads;
    let image = g / p.query_rows / p.heads;
    var variant = 0u;
    if p.is_drawn != 0u { variant = draws[p.segment]; }
    let list = keys_of(variant, row);
    let query = p.q_first + (image * p.query_rows + row) * p.q_width + head * p.head_width;
    let keys = p.kv_first + image * p.key_rows * p.kv_width + head * p.head_width + p.key_column;
    let to = p.y_first + g * p.key_rows;
    for (var k = 0u; k < p.key_rows; k++) { y[to + k] = 0.0; }
    var top = -1e30;
    var sum = 0.0;
    // Two walks: the sum first, moving its maximum along; then the probabilities. A token seen twice has the sum of both.
    for (var walk = 0u; walk < 2u; walk++) {
        for (var k = 0u; k < list.count; k++) {
            let key = key_row(list, k);
            let s = score(query, key, keys + key * p.kv_width, bias_slot(list, k), head);
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
