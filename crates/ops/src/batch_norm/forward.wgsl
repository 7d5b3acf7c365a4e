// Batch norm, y from given statistics. One thread owns one element. The contract is in mod.rs.

// x0, y0: where the rows begin in their bindings.
struct Params { len: u32, cols: u32, eps: f32, x0: u32, y0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;         // [rows, cols]
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;     // [cols]
@group(0) @binding(2) var<storage, read_write> beta: array<f32>;      // [cols]
@group(0) @binding(3) var<storage, read_write> mean: array<f32>;      // [cols]
@group(0) @binding(4) var<storage, read_write> variance: array<f32>;  // [cols]
@group(0) @binding(5) var<storage, read_write> y: array<f32>;         // [rows, cols]
@group(0) @binding(6) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let col = i % p.cols;
    y[p.y0 + i] = (x[p.x0 + i] - mean[col]) * (gamma[col] * inverseSqrt(variance[col] + p.eps)) + beta[col];
}
