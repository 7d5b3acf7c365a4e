// Results of a pass, added to the sums of the passes before it or put beside their results. One thread owns one element.
// The first pass sets the sum: what was there may be anything.

struct Params { len: u32, stride: u32, share: f32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;     // [len]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;     // [len], or [passes, stride] where stride is not 0
@group(0) @binding(2) var<storage, read_write> number: array<u32>;  // 0: number of the pass
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len { return; }
    if p.stride > 0u {
        y[number[0] * p.stride + i] = x[i];
    } else if number[0] == 0u {
        y[i] = p.share * x[i];
    } else {
        y[i] += p.share * x[i];
    }
}
