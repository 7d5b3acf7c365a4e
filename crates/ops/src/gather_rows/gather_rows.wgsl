// Rows of some images of one segment, rearranged. One thread owns one element of y. The contract is in mod.rs.

// x0, y0: where the operands begin in their bindings.
struct Params { len: u32, width: u32, rows_from: u32, rows_to: u32, x0: u32, y0: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;      // [images, rows_from, width]
@group(0) @binding(1) var<storage, read_write> index: array<u32>;  // [rows_to]; all bits set for a row of zeros
@group(0) @binding(2) var<storage, read_write> y: array<f32>;      // [images, rows_to, width]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let row = i / p.width;
    let image = row / p.rows_to;
    let source = index[row % p.rows_to];
    var v = 0.0;
    if source != 0xffffffffu { v = x[p.x0 + (image * p.rows_from + source) * p.width + i % p.width]; }
    y[p.y0 + i] = v;
}
