// C = Σ pieces of a product's inner axis, in order, then the epilogue. One thread owns one element.

struct Params { m: u32, n: u32, pieces: u32, c_first: u32, c_stride: u32, flags: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> partial: array<f32>;  // [pieces, m, n]
@group(0) @binding(1) var<storage, read_write> bias: array<f32>;     // [n]; not read without BIAS
@group(0) @binding(2) var<storage, read_write> c: array<f32>;        // [m, n]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    let len = p.m * p.n;
    if i >= len { return; }
    var sum = 0.0;
    for (var piece = 0u; piece < p.pieces; piece++) { sum += partial[piece * len + i]; }
    store(p.c_first + i / p.n * p.c_stride + i % p.n, i % p.n, sum);
}
