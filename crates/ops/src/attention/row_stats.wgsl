// Attention, backward, statistics of rows for the other two kernels: the variant drawn, and for every query and head the logarithm of its
// sum and Σ dy·y. One thread owns a query and head. The contract is in mod.rs.

@group(0) @binding(0) var<storage, read_write> stats: array<f32>;     // [queries, heads]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;         // [queries, channels], from dq_first
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;        // [queries, channels]
@group(0) @binding(3) var<storage, read_write> draws: array<u32>;     // [segments]; not read unless drawn
@group(0) @binding(4) var<storage, read_write> row_stats: array<f32>;  // the variant, then [queries, heads, 2]
@group(0) @binding(5) var<uniform>             p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * WG + tid;
    if i >= p.images * p.query_rows * p.heads { return; }
    if i == 0u {
        var variant = 0u;
        if p.is_drawn != 0u { variant = draws[p.segment]; }
        row_stats[0] = f32(variant);
    }
    let at = i / p.heads * p.channels + i % p.heads * p.head_width;
    var along = 0.0;
    for (var c = 0u; c < p.head_width; c++) { along += y[p.dq_first + at + c] * dy[p.y_first + at + c]; }
    row_stats[1u + 2u * i] = stats[p.stats_first + i];
    row_stats[2u + 2u * i] = along;
}
