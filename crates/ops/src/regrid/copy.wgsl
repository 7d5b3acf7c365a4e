// Some images of one segment, cut or extended by zeros at the bottom and right. One thread owns one element of y.

// height, width: the grid of x; x0, y0: where the operands begin in their bindings.
struct Params { len: u32, cols: u32, height: u32, width: u32, to_height: u32, to_width: u32, x0: u32, y0: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [images, height, width, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [images, to_height, to_width, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let token = i / p.cols;
    let col = token % p.to_width;
    let row = token / p.to_width % p.to_height;
    let image = token / p.to_width / p.to_height;
    var v = 0.0;
    if row < p.height && col < p.width { v = x[p.x0 + ((image * p.height + row) * p.width + col) * p.cols + i % p.cols]; }
    y[p.y0 + i] = v;
}
