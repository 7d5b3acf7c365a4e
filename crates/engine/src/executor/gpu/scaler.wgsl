// After the norms of all gradients: where one of them is not finite the optimizer passes over this step and the loss is scaled by less, and
// after a long row of good steps by more. A loss that is not finite changes nothing. One workgroup.

struct Params { entries: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> scaler: array<f32>;  // scale, good steps in a row, growth, backoff, growth interval
@group(0) @binding(1) var<storage, read_write> report: array<f32>;  // 3: finite; 6: the optimizer's step is taken; 8 + 4·entry: Σ g²
@group(0) @binding(2) var<uniform>             p: Params;

var<workgroup> found: array<u32, 256>;

@compute @workgroup_size(256)
fn main(@builtin(local_invocation_index) tid: u32) {
    var bad = 0u;
    for (var i = tid; i < p.entries; i += 256u) {
        // By its bits, as in report.wgsl.
        if (bitcast<u32>(report[8u + 4u * i]) & 0x7f800000u) == 0x7f800000u { bad = 1u; }
    }
    found[tid] = bad;
    workgroupBarrier();  // all threads' findings are there
    for (var width = 128u; width > 0u; width /= 2u) {
        if tid < width { found[tid] |= found[tid + width]; }
        workgroupBarrier();  // this level of the tree is complete
    }
    if tid != 0u || report[3] == 0.0 { return; }
    if found[0] != 0u {
        report[6] = 0.0;
        scaler[0] = max(scaler[0] * scaler[3], 1.1754944e-38);  // its inverse stays finite
        scaler[1] = 0.0;
    } else if scaler[1] + 1.0 >= scaler[4] {
        // As in PyTorch, a scale that would become infinite stays.
        if scaler[0] < 3.4028235e38 / scaler[2] { scaler[0] *= scaler[2]; }
        scaler[1] = 0.0;
    } else {
        scaler[1] += 1.0;
    }
}
