// dx of every token is its image's dy divided by the image's tokens, for some images of one segment. One thread owns one element of dx. The
// contract is in mod.rs.

// x0, y0: where the operands begin in their bindings.
struct Params { len: u32, tokens: u32, cols: u32, x0: u32, y0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;  // [images, cols]
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;  // [images, tokens, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let image = i / (p.tokens * p.cols);
    dx[p.x0 + i] = dy[p.y0 + image * p.cols + i % p.cols] / f32(p.tokens);
}
