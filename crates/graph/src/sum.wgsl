// y = a + b + c + d, of which the first `terms` are there. One thread owns one element; it reads all terms before it writes, so `a` may be
// `y`. Bindings of absent terms are not read.

struct Params { len: u32, terms: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> c: array<f32>;
@group(0) @binding(3) var<storage, read_write> d: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<f32>;
@group(0) @binding(5) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    var sum = a[i];
    if p.terms > 1u { sum += b[i]; }
    if p.terms > 2u { sum += c[i]; }
    if p.terms > 3u { sum += d[i]; }
    y[i] = sum;
}
