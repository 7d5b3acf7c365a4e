// Rows of the matrix of patches, for some tokens of y of one segment. One thread owns one element: neighbors are neighboring columns, in
// the order (channel, ky, kx) of the weights. The contract is in mod.rs.

// len: elements; row: the first row, counted from the first image in the binding of x; x0, y0: where the operands begin in their bindings.
struct Params {
    len: u32, cols: u32, kernel: u32, stride: u32,
    padding: u32, channels: u32, height: u32, width: u32,
    out_width: u32, out_area: u32, row: u32, x0: u32,
    y0: u32, pad0: u32, pad1: u32, pad2: u32,
}

@group(0) @binding(0) var<storage, read_write> x: array<f32>;        // [images, height, width, channels]
@group(0) @binding(1) var<storage, read_write> patches: array<f32>;  // [rows, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let row = p.row + i / p.cols;
    let col = i % p.cols;
    let taps = p.kernel * p.kernel;
    let tap = col % taps;
    let image = row / p.out_area;
    let t = row % p.out_area;
    // Before the grid begins these wrap around to far beyond its end.
    let y = t / p.out_width * p.stride + tap / p.kernel - p.padding;
    let at = t % p.out_width * p.stride + tap % p.kernel - p.padding;
    var v = 0.0;
    if y < p.height && at < p.width { v = x[p.x0 + ((image * p.height + y) * p.width + at) * p.channels + col / taps]; }
    patches[p.y0 + i] = v;
}
