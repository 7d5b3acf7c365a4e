// Weight norm, with u = v/|v|: dg = dw·u, dv = (g/|v|)·(dw − u·(dw·u)). A workgroup owns four rows; 64 threads share a row, each takes
// every 64th column. The contract is in mod.rs.

alias Sum = vec2f;

struct Params { rows: u32, cols: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> v: array<f32>;   // [rows, cols]
@group(0) @binding(1) var<storage, read_write> g: array<f32>;   // [rows]
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;  // [rows, cols]
@group(0) @binding(3) var<storage, read_write> dv: array<f32>;  // [rows, cols]
@group(0) @binding(4) var<storage, read_write> dg: array<f32>;  // [rows]
@group(0) @binding(5) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = row_of(wg, grid, tid);
    let lane = tid % LANES;

    var dots = vec2f();  // v·v, dw·v
    for (var c = lane; c < row.cols; c += LANES) { let x = v[row.begin + c]; dots += x * vec2f(x, dw[row.begin + c]); }
    let sums = sum_over_row(tid, dots);

    if row.exists {
        let norm = sqrt(sums.x);
        let scale = g[row.index] / norm;
        let along = sums.y / sums.x;
        for (var c = lane; c < row.cols; c += LANES) { dv[row.begin + c] = scale * (dw[row.begin + c] - v[row.begin + c] * along); }
        if lane == 0u { dg[row.index] = sums.y / norm; }
    }
}
