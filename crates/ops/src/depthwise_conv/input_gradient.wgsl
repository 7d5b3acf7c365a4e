// Depthwise convolution, dx for some images of one segment: a token gathers the outputs that looked at it. One thread owns one element.

// x0, y0: where dx and dy begin in their bindings.
struct Params {
    len: u32, cols: u32, kernel: u32, stride: u32,
    padding: u32, height: u32, width: u32, out_height: u32,
    out_width: u32, x0: u32, y0: u32, rows: u32,
    first: u32, pad0: u32, pad1: u32, pad2: u32,
}

@group(0) @binding(0) var<storage, read_write> dy: array<f32>;      // [images, out_height, out_width, cols]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;  // [cols, kernel²]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;      // [images, height, width, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let c = i % p.cols;
    let token = i / p.cols;
    let col = token % p.width + p.padding;
    let row = token / p.width % p.height + p.padding;
    let image = token / p.width / p.height;
    var sum = 0.0;
    for (var ky = 0u; ky < p.kernel && ky <= row; ky++) {
        let oy = (row - ky) / p.stride;
        if oy * p.stride != row - ky || oy >= p.out_height { continue; }
        for (var kx = 0u; kx < p.kernel && kx <= col; kx++) {
            let ox = (col - kx) / p.stride;
            if ox * p.stride != col - kx || ox >= p.out_width { continue; }
            let at = ((image * p.out_height + oy) * p.out_width + ox) * p.cols + c;
            sum += weight[(c * p.kernel + ky) * p.kernel + kx] * dy[p.y0 + at];
        }
    }
    dx[p.x0 + i] = sum;
}
