// Rows scaled to unit length, dx = (dy − y·(y·dy)) / |x|. A workgroup owns four rows; 64 threads share a row, each takes every 64th column.
// The contract is in mod.rs.

alias Sum = f32;

struct Params { rows: u32, cols: u32, eps: f32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> y: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> norms: array<f32>;  // [rows]
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;     // [rows, cols]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;     // [rows, cols]
@group(0) @binding(4) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = row_of(wg, grid, tid);
    let lane = tid % LANES;
    var norm = 1.0;
    if row.exists { norm = norms[row.index]; }

    var dot = 0.0;
    for (var c = lane; c < row.cols; c += LANES) { dot += y[row.begin + c] * dy[row.begin + c]; }
    // At the bound the scale is a constant, so only the first term remains.
    let along = select(0.0, sum_over_row(tid, dot), norm > p.eps);

    for (var c = lane; c < row.cols; c += LANES) { dx[row.begin + c] = (dy[row.begin + c] - y[row.begin + c] * along) / norm; }
}
