// dx from the gradients of some rows of the matrix of patches: each token adds up what the outputs that looked at it send back, in the
// order of the taps. One thread owns one element of dx, of the images those rows belong to. An image whose first row is among them begins
// at zero; one that an earlier dispatch has begun is added to.

// len: elements of dx; row, rows: those of the patches, counted from the first image in the binding of dx.
struct Params {
    len: u32, cols: u32, kernel: u32, stride: u32,
    padding: u32, channels: u32, height: u32, width: u32,
    out_height: u32, out_width: u32, row: u32, rows: u32,
    dx0: u32, y0: u32, pad0: u32, pad1: u32,
}

@group(0) @binding(0) var<storage, read_write> patches: array<f32>;  // [rows, cols]
@group(0) @binding(1) var<storage, read_write> dx: array<f32>;       // [images, height, width, channels]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let channel = i % p.channels;
    let token = i / p.channels;
    let image = token / (p.height * p.width);
    let y = token / p.width % p.height + p.padding;
    let x = token % p.width + p.padding;
    let first = image * p.out_height * p.out_width;
    var sum = 0.0;
    if first < p.row { sum = dx[p.dx0 + i]; }
    for (var ky = 0u; ky < p.kernel && ky <= y; ky++) {
        let oy = (y - ky) / p.stride;
        if oy * p.stride != y - ky || oy >= p.out_height { continue; }
        for (var kx = 0u; kx < p.kernel && kx <= x; kx++) {
            let ox = (x - kx) / p.stride;
            if ox * p.stride != x - kx || ox >= p.out_width { continue; }
            let row = first + oy * p.out_width + ox;
            if row >= p.row && row < p.row + p.rows {
                sum += patches[p.y0 + (row - p.row) * p.cols + (channel * p.kernel + ky) * p.kernel + kx];
            }
        }
    }
    dx[p.dx0 + i] = sum;
}
