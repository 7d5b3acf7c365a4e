// What both backward kernels need: the variant drawn, and for every query and head the logarithm of its sum and Σ dy·y. One thread owns a query
// and head. The contract is in mod.rs.

const WG = 64u;

struct Params {
    images: u32, heads: u32, channels: u32, head_width: u32,
    query_rows: u32, key_rows: u32, q_width: u32, kv_width: u32,               // rows of an image; columns of the operands
    key_column: u32, value_column: u32, bias_rows: u32, segment: u32,
    units_each: u32, q_first: u32, kv_first: u32, y_first: u32,                // words before the piece's first in each binding
    dq_first: u32, dkv_first: u32, stats_first: u32, partial_first: u32,
    scale: f32, is_drawn: u32, pad0: u32, pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> stats: array<f32>;     // [queries, heads]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;         // [queries, channels], from dq_first
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;        // [queries, channels]
@group(0) @binding(3) var<storage, read_write> draws: array<u32>;     // [segments]; not read unless drawn
@group(0) @binding(4) var<storage, read_write> prepared: array<f32>;  // the variant, then [queries, heads, 2]
@group(0) @binding(5) var<uniform>             p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * WG + tid;
    if i >= p.images * p.query_rows * p.heads { return; }
    if i == 0u {
        var variant = 0u;
        if p.is_drawn != 0u { variant = draws[p.segment]; }
        prepared[0] = f32(variant);
    }
    let at = i / p.heads * p.channels + i % p.heads * p.head_width;
    var along = 0.0;
    for (var c = 0u; c < p.head_width; c++) { along += y[p.dq_first + at + c] * dy[p.y_first + at + c]; }
    prepared[1u + 2u * i] = stats[p.stats_first + i];
    prepared[2u + 2u * i] = along;
}
