// y (+)= the sum over some images of one segment. One thread owns one element of y. The contract is in mod.rs.

// len: elements of an image; x0, y0: where the operands begin in their bindings.
struct Params { images: u32, len: u32, x0: u32, y0: u32, accumulate: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [images, tokens, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [tokens, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    var sum = 0.0;
    if p.accumulate != 0u { sum = y[p.y0 + i]; }
    for (var image = 0u; image < p.images; image++) { sum += x[p.x0 + image * p.len + i]; }
    y[p.y0 + i] = sum;
}
