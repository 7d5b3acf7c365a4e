// Layer norm, dx = rstd·(h − mean(h) − x̂·mean(h·x̂)) with h = dy·gamma. A workgroup owns four rows; 64 threads share a row, each takes
// every 64th column. The contract is in mod.rs.

alias Sum = vec2f;

struct Params { rows: u32, cols: u32, eps: f32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;        // [rows, cols]
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;    // [cols]
@group(0) @binding(2) var<storage, read_write> stats: array<vec2f>;  // [rows] mean, rstd
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;       // [rows, cols]
@group(0) @binding(4) var<storage, read_write> dx: array<f32>;       // [rows, cols]
@group(0) @binding(5) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = row_of(wg, grid, tid);
    let lane = tid % LANES;
    var of_row = vec2f();
    if row.exists { of_row = stats[row.index]; }
    let mean = of_row.x;
    let rstd = of_row.y;

    var sums = vec2f();  // Σ h, Σ h·x̂
    for (var c = lane; c < row.cols; c += LANES) {
        let h = dy[row.begin + c] * gamma[c];
        sums += vec2f(h, h * ((x[row.begin + c] - mean) * rstd));
    }
    let means = sum_over_row(tid, sums) / f32(p.cols);

    for (var c = lane; c < row.cols; c += LANES) {
        let h = dy[row.begin + c] * gamma[c];
        let xhat = (x[row.begin + c] - mean) * rstd;
        dx[row.begin + c] = rstd * (h - means.x - xhat * means.y);
    }
}
