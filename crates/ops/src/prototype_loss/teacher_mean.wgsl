// mean[k] = scale·V_k·Σ_j ζ_j: the mean teacher logit. A workgroup owns four prototypes; 64 threads share one and stride over the channels.

struct Params { rows: u32, cols: u32, flags: u32, scale: f32 }  // scale: 1/Nt

@group(0) @binding(0) var<storage, read_write> v: array<f32>;      // [rows, cols]
@group(0) @binding(1) var<storage, read_write> sum_z: array<f32>;  // [cols]
@group(0) @binding(2) var<storage, read_write> mean: array<f32>;   // [rows]
@group(0) @binding(3) var<uniform>             p: Params;

var<workgroup> partial: array<f32, 256>;  // [4, 64]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let lane = tid % 64u;
    let row = (wg.y * grid.x + wg.x) * 4u + tid / 64u;
    var sum = 0.0;
    if row < p.rows {
        for (var c = lane; c < p.cols; c += 64u) { sum += v[row * p.cols + c] * sum_z[c]; }
    }
    partial[tid] = sum;
    workgroupBarrier();  // every thread's sum is there
    for (var width = 32u; width > 0u; width /= 2u) {
        if lane < width { partial[tid] += partial[tid + width]; }
        workgroupBarrier();  // this width is done before half of it is read
    }
    if lane == 0u && row < p.rows { mean[row] = partial[tid] * p.scale; }
}
