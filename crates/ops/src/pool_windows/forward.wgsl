// Rows copied, and pooled ones behind, for some images of one segment. One thread owns one element of y. The contract is in mod.rs.

@group(0) @binding(5) var<storage, read_write> y: array<f32>;            // [images, globals + tokens + windows, 2·C]
@group(0) @binding(6) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    let col = i % p.cols;
    let all = rows() + windows();
    let row = i / p.cols % all;
    let image = i / p.cols / all;
    if row < rows() {
        y[p.y0 + i] = kv[p.kv0 + (image * rows() + row) * p.cols + col];
        return;
    }
    let channels = p.cols / 2u;
    let c = col % channels;
    let head = c / (channels / p.heads);
    var scale = key_scale[head];
    if col >= channels { scale = value_scale[head]; }
    y[p.y0 + i] = scale * pooled(image, row - rows(), c);
}
