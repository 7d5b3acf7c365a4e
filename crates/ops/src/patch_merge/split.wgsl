// Every quarter of a merged token back to its token, for some images of one segment. One thread owns one element of dx. The contract is in
// mod.rs.

// height, width: the grid before merging; x0, y0: where the operands begin in their bindings.
struct Params { len: u32, cols: u32, height: u32, width: u32, x0: u32, y0: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;  // [images, ⌈height/2⌉, ⌈width/2⌉, 4, cols]
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;  // [images, height, width, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let high = (p.height + 1u) / 2u;
    let wide = (p.width + 1u) / 2u;
    let token = i / p.cols;
    let col = token % p.width;
    let line = token / p.width;
    let row = line % p.height;
    let image = line / p.height;
    // The quarters are (0, 0), (1, 0), (0, 1), (1, 1) as (row, column).
    let quarter = (row & 1u) + 2u * (col & 1u);
    let merged = (image * high + row / 2u) * wide + col / 2u;
    dx[p.x0 + i] = dy[p.y0 + (merged * 4u + quarter) * p.cols + i % p.cols];
}
