// dz for some images of one segment. One thread owns one channel of one image. The contract is in mod.rs.

// x0, z0, y0, out0: where x, z, dy and dz begin in their bindings.
struct Params { len: u32, tokens: u32, cols: u32, x0: u32, z0: u32, y0: u32, out0: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;   // [images, tokens, cols]
@group(0) @binding(1) var<storage, read_write> z: array<f32>;   // [images, cols]
@group(0) @binding(2) var<storage, read_write> dy: array<f32>;  // [images, tokens, cols]
@group(0) @binding(3) var<storage, read_write> dz: array<f32>;  // [images, cols]
@group(0) @binding(4) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let first = i / p.cols * p.tokens * p.cols + i % p.cols;
    var sum = 0.0;
    for (var t = 0u; t < p.tokens; t++) { sum += x[p.x0 + first + t * p.cols] * dy[p.y0 + first + t * p.cols]; }
    let gate = 1.0 / (1.0 + exp(-z[p.z0 + i]));
    dz[p.out0 + i] = sum * gate * (1.0 - gate);
}
