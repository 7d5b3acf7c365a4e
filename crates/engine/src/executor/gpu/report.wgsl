// First entry of a step's report: the losses, the entropy, and whether the loss is finite. One thread.
// report: 0 view loss, 1 region loss, 2 entropy, 3 finite (1 or 0), 4 feature deviation, 5 gradient norm, 6 whether the optimizer's step is
// taken (1 or 0), 7 what gradients are multiplied with: one over the loss's scale; 8 + 4·i norms of entry i.

struct Params { region: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> view_loss: array<f32>;    // [1]
@group(0) @binding(1) var<storage, read_write> region_loss: array<f32>;  // [1]; not read unless p.region is 1
@group(0) @binding(2) var<storage, read_write> entropy: array<f32>;      // [1]
@group(0) @binding(3) var<storage, read_write> report: array<f32>;
@group(0) @binding(4) var<storage, read_write> scaler: array<f32>;       // 0: the loss's scale
@group(0) @binding(5) var<uniform>             p: Params;

@compute @workgroup_size(1)
fn main() {
    var region = 0.0;
    if p.region == 1u { region = region_loss[0]; }
    report[0] = view_loss[0];
    report[1] = region;
    report[2] = entropy[0];
    // By its bits, because a compiler may assume that no float is infinite: all exponent bits set is infinity or not a number.
    let bits = bitcast<u32>(view_loss[0] + region);
    report[6] = 1.0;
    report[7] = 1.0 / scaler[0];
    report[3] = select(0.0, 1.0, (bits & 0x7f800000u) != 0x7f800000u);
}
