// Rows scaled to unit length, forward. A workgroup owns four rows; 64 threads share a row, each takes every 64th column. The contract is
// in mod.rs.

alias Sum = f32;

struct Params { rows: u32, cols: u32, eps: f32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;      // [rows, cols]
@group(0) @binding(2) var<storage, read_write> norms: array<f32>;  // [rows]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = row_of(wg, grid, tid);
    let lane = tid % LANES;

    var squares = 0.0;
    for (var c = lane; c < row.cols; c += LANES) { let v = x[row.begin + c]; squares += v * v; }
    let norm = max(sqrt(sum_over_row(tid, squares)), p.eps);

    for (var c = lane; c < row.cols; c += LANES) { y[row.begin + c] = x[row.begin + c] / norm; }
    if row.exists && lane == 0u { norms[row.index] = norm; }
}
