// Largest value of a sliding window and its tap, for some images of one segment. One thread owns one element of y.

// x0, y0: where the operands begin in their bindings; taps begin where y does.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;     // [images, height, width, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;     // [images, out_height, out_width, cols]
@group(0) @binding(2) var<storage, read_write> taps: array<u32>;  // [images, out_height, out_width, cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let token = i / p.cols;
    let left = token % p.out_width * p.stride;
    let top = token / p.out_width % p.out_height * p.stride;
    let image = token / p.out_width / p.out_height;
    var best = -3.4028234e38;
    var tap = 0u;
    var found = false;
    for (var ky = 0u; ky < p.kernel; ky++) {
        // Before the grid begins these wrap around to far beyond its end.
        let row = top + ky - p.padding;
        if row >= p.height { continue; }
        for (var kx = 0u; kx < p.kernel; kx++) {
            let col = left + kx - p.padding;
            if col >= p.width { continue; }
            let v = x[p.x0 + ((image * p.height + row) * p.width + col) * p.cols + i % p.cols];
            if !found || v > best {
                best = v;
                tap = ky * p.kernel + kx;
                found = true;
            }
        }
    }
    y[p.y0 + i] = best;
    taps[p.y0 + i] = tap;
}
