// Gradients for some images of one segment: dkv, one thread for each element; and scales, weights and bias, one workgroup for each number,
// whose threads share windows and channels. The contract is in mod.rs.

@group(0) @binding(5) var<storage, read_write> dy: array<f32>;           // [images, globals + tokens + windows, 2·C]
@group(0) @binding(6) var<storage, read_write> out: array<f32>;          // dkv; or one of the small gradients
@group(0) @binding(7) var<uniform>             p: Params;

var<workgroup> shares: array<f32, 64>;

// Where the gradient of a pooled key is; that of the value follows C later.
fn incoming(image: u32, m: u32, c: u32) -> u32 {
    return p.y0 + (image * (rows() + windows()) + rows() + m) * p.cols + c;
}

fn dpooled(image: u32, m: u32, c: u32) -> f32 {
    let channels = p.cols / 2u;
    let head = c / (channels / p.heads);
    let at = incoming(image, m, c);
    return key_scale[head] * dy[at] + value_scale[head] * dy[at + channels];
}

@compute @workgroup_size(256)
fn dkv(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let col = i % p.cols;
    let row = i / p.cols % rows();
    let image = i / p.cols / rows();
    var d = dy[p.y0 + (image * (rows() + windows()) + row) * p.cols + col];
    if row >= p.globals && col < p.cols / 2u {
        let r = (row - p.globals) / p.width;
        let c = (row - p.globals) % p.width;
        let m = r / p.window * ((p.width + p.window - 1u) / p.window) + c / p.window;
        d += weight_of(r % p.window * p.window + c % p.window) * dpooled(image, m, col);
    }
    out[p.out0 + i] = d;
}

// what: 1 the keys' scales, 2 the values', 3 the weights, 4 the bias.
@compute @workgroup_size(64)
fn sums(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let n = wg.y * grid.x + wg.x;
    if n >= p.len { return; }  // uniform: a whole workgroup leaves together
    let channels = p.cols / 2u;
    var sum = 0.0;
    for (var i = tid; i < p.images * windows() * channels; i += 64u) {
        let c = i % channels;
        let m = i / channels % windows();
        let image = i / channels / windows();
        if p.what <= 2u {
            if c / (channels / p.heads) == n {
                sum += pooled(image, m, c) * dy[incoming(image, m, c) + select(0u, channels, p.what == 2u)];
            }
        } else if p.what == 3u {
            let row = row_of(m, n);
            if row != 0xffffffffu { sum += kv[p.kv0 + (image * rows() + row) * p.cols + c] * dpooled(image, m, c); }
        } else {
            sum += dpooled(image, m, c);
        }
    }
    shares[tid] = sum;
    workgroupBarrier();  // every thread's share is there
    if tid == 0u {
        var total = 0.0;
        if p.accumulate != 0u { total = out[n]; }
        for (var t = 0u; t < 64u; t++) { total += shares[t]; }
        out[n] = total;
    }
}
