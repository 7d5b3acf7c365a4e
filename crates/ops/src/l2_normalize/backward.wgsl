// Rows scaled to unit length, dx = (dy − y·(y·dy)) / |x|. A workgroup owns four rows; 64 threads share a row, each takes every 64th column.
// The contract is in mod.rs.

const ROWS = 4u;
const LANES = 64u;

struct Params { rows: u32, cols: u32, eps: f32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> y: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> norms: array<f32>;  // [rows]
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;     // [rows, cols]
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;     // [rows, cols]
@group(0) @binding(4) var<uniform>             p: Params;

var<workgroup> partial: array<f32, 256>;  // [ROWS, LANES]
var<workgroup> eighths: array<f32, 32>;   // [ROWS, 8]

// Sum of `v` over the 64 threads of a row, the same value for each.
fn sum_over_row(tid: u32, v: f32) -> f32 {
    let lane = tid % LANES;
    let eighth = tid / LANES * 8u;
    partial[tid] = v;
    workgroupBarrier();  // all 64 values are there
    if lane < 8u {
        var sum = 0.0;
        for (var i = 0u; i < LANES; i += 8u) { sum += partial[tid + i]; }
        eighths[eighth + lane] = sum;
    }
    workgroupBarrier();  // all 8 sums are there
    var sum = 0.0;
    for (var i = 0u; i < 8u; i++) { sum += eighths[eighth + i]; }
    return sum;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = (wg.y * grid.x + wg.x) * ROWS + tid / LANES;
    let lane = tid % LANES;
    // A row beyond the last has no columns; its threads stay for the barriers.
    let inside = row < p.rows;
    let begin = row * p.cols;
    let cols = select(0u, p.cols, inside);
    var norm = 1.0;
    if inside { norm = norms[row]; }

    var dot = 0.0;
    for (var c = lane; c < cols; c += LANES) { dot += y[begin + c] * dy[begin + c]; }
    // At the bound the scale is a constant, so only the first term remains.
    let along = select(0.0, sum_over_row(tid, dot), norm > p.eps);

    for (var c = lane; c < cols; c += LANES) { dx[begin + c] = (dy[begin + c] - y[begin + c] * along) / norm; }
}
