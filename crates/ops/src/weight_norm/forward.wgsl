// Weight norm, w[k] = g[k]·v[k]/|v[k]|. A workgroup owns four rows; 64 threads share a row, each takes every 64th column. The contract is
// in mod.rs.

alias Sum = f32;

struct Params { rows: u32, cols: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> v: array<f32>;  // [rows, cols]
@group(0) @binding(1) var<storage, read_write> g: array<f32>;  // [rows]
@group(0) @binding(2) var<storage, read_write> w: array<f32>;  // [rows, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = row_of(wg, grid, tid);
    let lane = tid % LANES;

    var squares = 0.0;
    for (var c = lane; c < row.cols; c += LANES) { let x = v[row.begin + c]; squares += x * x; }
    let norm = sqrt(sum_over_row(tid, squares));

    if row.exists {
        let scale = g[row.index] / norm;
        for (var c = lane; c < row.cols; c += LANES) { w[row.begin + c] = scale * v[row.begin + c]; }
    }
}
