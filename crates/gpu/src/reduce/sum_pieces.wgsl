// y[i] = Σ_p x[p, i], pieces in order. One thread owns one element.

struct Params { pieces: u32, len: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [pieces, len]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [len]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    var sum = 0.0;
    for (var piece = 0u; piece < p.pieces; piece++) { sum += x[piece * p.len + i]; }
    y[i] = sum;
}
