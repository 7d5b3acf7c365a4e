// The rest of the report: the spread of the teacher's view features (see monitor.rs) and the norm over all gradients. One workgroup; it
// first finds the length of every row, then each thread owns some channels.

struct Params { rows: u32, cols: u32, entries: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> views: array<f32>;    // [rows, cols]
@group(0) @binding(1) var<storage, read_write> lengths: array<f32>;  // [rows], scratch
@group(0) @binding(2) var<storage, read_write> report: array<f32>;   // 4 deviation, 5 norm; 8 + 4·entry: Σ g²
@group(0) @binding(3) var<uniform>             p: Params;

var<workgroup> sums: array<f32, 256>;

fn sum_over_threads(tid: u32, v: f32) -> f32 {
    sums[tid] = v;
    workgroupBarrier();  // all threads' values are there
    for (var width = 128u; width > 0u; width /= 2u) {
        if tid < width { sums[tid] += sums[tid + width]; }
        workgroupBarrier();  // this level of the tree is complete
    }
    let total = sums[0];
    workgroupBarrier();  // everyone has read it before the next call writes
    return total;
}

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) tid: u32) {
    for (var row = tid; row < p.rows; row += 256u) {
        var sum = 0.0;
        for (var c = 0u; c < p.cols; c++) { let v = views[row * p.cols + c]; sum += v * v; }
        lengths[row] = max(sqrt(sum), 1e-12);
    }
    storageBarrier();  // lengths are read by other threads below
    var deviations = 0.0;
    for (var c = tid; c < p.cols; c += 256u) {
        var mean = 0.0;
        for (var row = 0u; row < p.rows; row++) { mean += views[row * p.cols + c] / lengths[row]; }
        mean /= f32(p.rows);
        var variance = 0.0;
        for (var row = 0u; row < p.rows; row++) { let d = views[row * p.cols + c] / lengths[row] - mean; variance += d * d; }
        deviations += sqrt(variance / f32(p.rows));
    }
    let deviation = sum_over_threads(tid, deviations);
    var norms = 0.0;
    for (var i = tid; i < p.entries; i += 256u) { norms += report[8u + 4u * i]; }
    let norm = sum_over_threads(tid, norms);
    if tid == 0u {
        report[4] = deviation / sqrt(f32(p.cols));
        report[5] = sqrt(norm);
    }
}
