// y = scale[image]·x for some images of one segment. One thread owns one element. The contract is in mod.rs.

// image_len: elements of an image; image: the first one's number; x0, y0: where the operands begin in their bindings.
struct Params { len: u32, image_len: u32, image: u32, x0: u32, y0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> scale: array<f32>;  // [images]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;      // [rows, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    y[p.y0 + i] = scale[p.image + i / p.image_len] * x[p.x0 + i];
}
