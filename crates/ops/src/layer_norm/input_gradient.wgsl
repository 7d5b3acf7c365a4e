// Layer norm, dx = rstd·(h − mean(h) − x̂·mean(h·x̂)) with h = dy·gamma. A workgroup owns four rows; 64 threads share a row, each takes
// every 64th column. The contract is in mod.rs.

const ROWS = 4u;
const LANES = 64u;

struct Params { rows: u32, cols: u32, eps: f32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;        // [rows, cols]
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;    // [cols]
@group(0) @binding(2) var<storage, read_write> stats: array<vec2f>;  // [rows] mean, rstd
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;       // [rows, cols]
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;       // [rows, cols]
@group(0) @binding(5) var<uniform>             p: Params;

var<workgroup> partial: array<vec2f, 256>;  // [ROWS, LANES]
var<workgroup> eighths: array<vec2f, 32>;   // [ROWS, 8]

// Sum of `v` over the 64 threads of a row, the same value for each.
fn sum_over_row(tid: u32, v: vec2f) -> vec2f {
    let lane = tid % LANES;
    let eighth = tid / LANES * 8u;
    partial[tid] = v;
    workgroupBarrier();  // all 64 values are there
    if lane < 8u {
        var sum = vec2f();
        for (var i = 0u; i < LANES; i += 8u) { sum += partial[tid + i]; }
        eighths[eighth + lane] = sum;
    }
    workgroupBarrier();  // all 8 sums are there
    var sum = vec2f();
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
    var of_row = vec2f();
    if inside { of_row = stats[row]; }
    let mean = of_row.x;
    let rstd = of_row.y;

    var sums = vec2f();  // Σ h, Σ h·x̂
    for (var c = lane; c < cols; c += LANES) {
        let h = dy[begin + c] * gamma[c];
        sums += vec2f(h, h * ((x[begin + c] - mean) * rstd));
    }
    let means = sum_over_row(tid, sums) / f32(p.cols);

    for (var c = lane; c < cols; c += LANES) {
        let h = dy[begin + c] * gamma[c];
        let xhat = (x[begin + c] - mean) * rstd;
        dx[begin + c] = rstd * (h - means.x - xhat * means.y);
    }
}
