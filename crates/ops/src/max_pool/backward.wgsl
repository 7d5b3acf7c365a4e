// dx of a sliding maximum, for some images of one segment: a token gets the gradients of the windows it won. One thread owns one element of
// dx and looks at the windows around it, in the order of their taps.

// x0, y0: where dx and dy begin in their bindings; taps begin where dy does.
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;    // [images, out_height, out_width, cols]
@group(0) @binding(1) var<storage, read_write> taps: array<u32>;  // [images, out_height, out_width, cols]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;    // [images, height, width, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
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
            let at = p.y0 + ((image * p.out_height + oy) * p.out_width + ox) * p.cols + i % p.cols;
            if taps[at] == ky * p.kernel + kx { sum += dy[at]; }
        }
    }
    dx[p.x0 + i] = sum;
}
