// y[0] = scale·Σ x[i]. One workgroup does it all: its threads stride over x, then add in pairs.

alias Sum = f32;

struct Params { len: u32, cols: u32, flags: u32, scale: f32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [len]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [1]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) tid: u32) {
    var sum = 0.0;
    for (var i = tid; i < p.len; i += WG) { sum += x[i]; }
    let total = sum_over_workgroup(tid, sum);
    if tid == 0u { y[0] = total * p.scale; }
}
