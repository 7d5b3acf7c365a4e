// y = x + table, the table again and again. One thread owns one element. The contract is in mod.rs.

// table_len: elements of the table; first: the table's element that belongs to the first of x.
struct Params { len: u32, table_len: u32, first: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> table: array<f32>;  // [tokens, cols]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;      // [rows, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    y[i] = x[i] + table[(p.first + i) % p.table_len];
}
