// Convolution in groups, for some images of one segment. One thread owns one element of y. The contract is in mod.rs.

// before, after: channels of a group of x and of y; x0, y0: where the operands begin in their bindings.
@group(0) @binding(0) var<storage, read_write> x: array<f32>;       // [images, height, width, groups, before]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;  // [groups, after, before, kernel²]
@group(0) @binding(2) var<storage, read_write> y: array<f32>;       // [images, out_height, out_width, groups, after]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let outs = p.groups * p.after;
    let ins = p.groups * p.before;
    let taps = p.kernel * p.kernel;
    let c = i % outs;
    let token = i / outs;
    let left = token % p.out_width * p.stride;
    let top = token / p.out_width % p.out_height * p.stride;
    let image = token / p.out_width / p.out_height;
    var sum = 0.0;
    for (var ky = 0u; ky < p.kernel; ky++) {
        // Before the grid begins these wrap around to far beyond its end.
        let row = top + ky - p.padding;
        if row >= p.height { continue; }
        for (var kx = 0u; kx < p.kernel; kx++) {
            let col = left + kx - p.padding;
            if col >= p.width { continue; }
            let seen = p.x0 + ((image * p.height + row) * p.width + col) * ins + c / p.after * p.before;
            let by = c * p.before * taps + ky * p.kernel + kx;
            for (var j = 0u; j < p.before; j++) { sum += weight[by + j * taps] * x[seen + j]; }
        }
    }
    y[p.y0 + i] = sum;
}
