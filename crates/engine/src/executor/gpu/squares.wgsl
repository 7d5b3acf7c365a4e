// Two sums of squares over a piece of an entry: Σ (g·scale)² when clipping, Σ p² and Σ (g·scale + decay·p)² for LARS. A workgroup owns 4096
// elements; its threads' sums are added in a fixed tree.

const PIECE = 4096u;
const LARS = 1u;

struct Params { len: u32, mode: u32, entry: u32, first: u32 }

@group(0) @binding(0) var<storage, read_write> g: array<f32>;          // [len]
@group(0) @binding(1) var<storage, read_write> w: array<f32>;          // [len] the parameter; not read when clipping
@group(0) @binding(2) var<storage, read_write> report: array<f32>;     // 7: one over the loss's scale; 9 + 4·entry: clip's factor
@group(0) @binding(3) var<storage, read_write> parameters: array<f32>;      // 4 + 4·entry: active, decay, …
@group(0) @binding(4) var<storage, read_write> partial: array<vec2f>;  // [pieces]
@group(0) @binding(5) var<uniform>             p: Params;

var<workgroup> sums: array<vec2f, 256>;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let piece = wg.y * grid.x + wg.x;
    let end = min(p.len, (piece + 1u) * PIECE);
    var sum = vec2f(0.0);
    for (var i = piece * PIECE + tid; i < end; i += 256u) {
        if p.mode == LARS {
            let decayed = g[i] * report[9u + 4u * p.entry] + parameters[5u + 4u * p.entry] * w[i];
            sum += vec2f(w[i] * w[i], decayed * decayed);
        } else {
            let unscaled = g[i] * report[7];
            sum.x += unscaled * unscaled;
        }
    }
    sums[tid] = sum;
    workgroupBarrier();  // all threads' sums are there
    for (var width = 128u; width > 0u; width /= 2u) {
        if tid < width { sums[tid] += sums[tid + width]; }
        workgroupBarrier();  // this level of the tree is complete
    }
    if tid == 0u { partial[p.first + piece] = sums[0]; }
}
