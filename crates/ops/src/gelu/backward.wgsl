// dx = dy·(Φ(x) + x·φ(x)). One thread owns one element. The contract is in mod.rs.

struct Params { len: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> dy: array<f32>;
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let v = x[i];
    let cdf = 0.5 + 0.5 * erf(v * 0.70710678);
    let pdf = 0.3989423 * exp(-0.5 * v * v);
    dx[i] = dy[i] * (cdf + v * pdf);
}
