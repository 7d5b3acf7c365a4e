// Four neighbors become one token, for some images of one segment. One thread owns one element of y. The contract is in mod.rs.

// height, width: the grid before merging; x0, y0: where the operands begin in their bindings.
struct Params { len: u32, cols: u32, height: u32, width: u32, x0: u32, y0: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [images, height, width, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [images, ⌈height/2⌉, ⌈width/2⌉, 4, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let wide = (p.width + 1u) / 2u;
    let merged = (p.height + 1u) / 2u * wide;
    let quarter = i / p.cols;
    let token = quarter / 4u;
    let image = token / merged;
    let t = token % merged;
    // The quarters are (0, 0), (1, 0), (0, 1), (1, 1) as (row, column).
    let row = t / wide * 2u + (quarter & 1u);
    let col = t % wide * 2u + ((quarter >> 1u) & 1u);
    var v = 0.0;
    if row < p.height && col < p.width { v = x[p.x0 + ((image * p.height + row) * p.width + col) * p.cols + i % p.cols]; }
    y[p.y0 + i] = v;
}
