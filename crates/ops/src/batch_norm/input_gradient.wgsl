// Batch norm, dx = gamma·rstd·(dy − share·(dbeta + x̂·dgamma)): `share` is 1/rows where the statistics are those of the rows, and 0 where
// they are constants. One thread owns one element. All eight storage buffers that adapters are sure to have are taken.

// x0, dy0, dx0: where the rows begin in their bindings.
struct Params { len: u32, cols: u32, eps: f32, share: f32, x0: u32, dy0: u32, dx0: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;         // [rows, cols]
@group(0) @binding(1) var<storage, read_write> gamma: array<f32>;     // [cols]
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;      // [cols]
@group(0) @binding(3) var<storage, read_write> variance: array<f32>;  // [cols]
@group(0) @binding(4) var<storage, read_write> dy: array<f32>;        // [rows, cols]
@group(0) @binding(5) var<storage, read_write> dgamma: array<f32>;    // [cols]
@group(0) @binding(6) var<storage, read_write> dbeta: array<f32>;     // [cols]
@group(0) @binding(7) var<storage, read_write> dx: array<f32>;        // [rows, cols]
@group(0) @binding(8) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let col = i % p.cols;
    let rstd = inverseSqrt(variance[col] + p.eps);
    let xhat = (x[p.x0 + i] - mean[col]) * rstd;
    dx[p.dx0 + i] = gamma[col] * rstd * (dy[p.dy0 + i] - p.share * (dbeta[col] + xhat * dgamma[col]));
}
