// Convolution in groups, dx for some images of one segment: a token gathers the outputs that looked at it. One thread owns one element.

// before, after: channels of a group of x and of y; x0, y0: where dx and dy begin in their bindings.
@group(0) @binding(0) var<storage, read_write> dy: array<f32>;      // [images, out_height, out_width, groups, after]
@group(0) @binding(1) var<storage, read_write> weight: array<f32>;  // [groups, after, before, kernel²]
@group(0) @binding(2) var<storage, read_write> dx: array<f32>;      // [images, height, width, groups, before]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let outs = p.groups * p.after;
    let ins = p.groups * p.before;
    let taps = p.kernel * p.kernel;
    let c = i % ins;
    let group = c / p.before;
    let token = i / ins;
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
            let seen = p.y0 + ((image * p.out_height + oy) * p.out_width + ox) * outs + group * p.after;
            let by = (group * p.after * p.before + c % p.before) * taps + ky * p.kernel + kx;
            for (var o = 0u; o < p.after; o++) { sum += weight[by + o * p.before * taps] * dy[seen + o]; }
        }
    }
    dx[p.x0 + i] = sum;
}
