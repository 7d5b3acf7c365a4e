// Weight norm, with u = v/|v|: dg = dw·u, dv = (g/|v|)·(dw − u·(dw·u)). A workgroup owns four rows; 64 threads share a row, each takes every
// 64th column. The contract is in mod.rs.

const ROWS = 4u;
const LANES = 64u;

struct Params { rows: u32, cols: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> v: array<f32>;   // [rows, cols]
@group(0) @binding(1) var<storage, read_write> g: array<f32>;   // [rows]
@group(0) @binding(2) var<storage, read_write> dw: array<f32>;  // [rows, cols]
@group(0) @binding(3) var<storage, read_write> dv: array<f32>;  // [rows, cols]
@group(0) @binding(4) var<storage, read_write> dg: array<f32>;  // [rows]
@group(0) @binding(5) var<uniform>             p: Params;

var<workgroup> partial: array<vec2f, 256>;  // [ROWS, LANES]
var<workgroup> eighths: array<vec2f, 32>;   // [ROWS, 8]

// Sum of `value` over the 64 threads of a row, the same for each.
fn sum_over_row(tid: u32, value: vec2f) -> vec2f {
    let lane = tid % LANES;
    let eighth = tid / LANES * 8u;
    partial[tid] = value;
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

    var dots = vec2f();  // v·v, dw·v
    for (var c = lane; c < cols; c += LANES) { let x = v[begin + c]; dots += x * vec2f(x, dw[begin + c]); }
    let sums = sum_over_row(tid, dots);

    if inside {
        let norm = sqrt(sums.x);
        let scale = g[row] / norm;
        let along = sums.y / sums.x;
        for (var c = lane; c < cols; c += LANES) { dv[begin + c] = scale * (dw[begin + c] - v[begin + c] * along); }
        if lane == 0u { dg[row] = sums.y / norm; }
    }
}
