// Adds the pieces of an entry's sums of squares and derives its factor: the clip's, or LARS's rate. One workgroup.

const LARS = 1u;
const LARS_ETA = 0.001;

struct Params { pieces: u32, mode: u32, entry: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> partial: array<vec2f>;  // [pieces]
@group(0) @binding(1) var<storage, read_write> report: array<f32>;     // 7: one over the loss's scale; 8 + 4·entry: Σ g², clip's factor over the scale, LARS's factor
@group(0) @binding(2) var<storage, read_write> parameters: array<f32>;      // 2: largest norm, 0 for none
@group(0) @binding(3) var<uniform>             p: Params;

var<workgroup> sums: array<vec2f, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) tid: u32) {
    var sum = vec2f(0.0);
    for (var i = tid; i < p.pieces; i += 256u) { sum += partial[i]; }
    sums[tid] = sum;
    workgroupBarrier();  // all threads' sums are there
    for (var width = 128u; width > 0u; width /= 2u) {
        if tid < width { sums[tid] += sums[tid + width]; }
        workgroupBarrier();  // this level of the tree is complete
    }
    if tid != 0u { return; }
    let total = sums[0];
    let at = 8u + 4u * p.entry;
    if p.mode == LARS {
        var factor = 1.0;
        if total.x > 0.0 && total.y > 0.0 { factor = LARS_ETA * sqrt(total.x) / sqrt(total.y); }
        report[at + 2u] = factor;
    } else {
        let clip = parameters[2];
        var factor = 1.0;
        if clip > 0.0 { factor = min(1.0, clip / (sqrt(total.x) + 1e-6)); }
        report[at] = total.x;
        report[at + 1u] = factor * report[7];
        report[at + 2u] = 1.0;
    }
}
