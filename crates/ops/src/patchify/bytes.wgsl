// 8-bit pixels to rows of patches, for some images of one segment. One thread owns one element of y. The contract is in mod.rs.

// scale, bias: of each channel; side: of a patch; height, width: in pixels; x0: the first byte in its binding; y0: the first element.
struct Params {
    scale: vec4f, bias: vec4f,
    len: u32, side: u32, height: u32, width: u32,
    x0: u32, y0: u32, pad0: u32, pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<u32>;  // bytes [images, height, width, 3], four to a word
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [images, tokens, 3, side, side]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let at = pixel_of(i);
    let byte = p.x0 + ((at.image * p.height + at.row) * p.width + at.col) * 3u + at.channel;
    let value = (x[byte / 4u] >> (byte % 4u * 8u)) & 255u;
    y[p.y0 + i] = f32(value) * p.scale[at.channel] + p.bias[at.channel];
}
