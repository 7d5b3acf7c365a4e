// y = x + table for some images of one segment. One thread owns one element. The contract is in mod.rs.

// x0, table0, y0: where the operands begin in their bindings.
struct Params { len: u32, table_len: u32, x0: u32, table0: u32, y0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;      // [images, tokens, cols]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;  // [tokens, cols]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;      // [images, tokens, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    y[p.y0 + i] = x[p.x0 + i] + table[p.table0 + i % p.table_len];
}
