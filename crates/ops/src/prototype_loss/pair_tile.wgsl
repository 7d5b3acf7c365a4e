// A pair's Σ_k exp(y_jk - M_j)·s_ik takes in a tile of K; after the last tile it becomes the pair's share of the loss. A workgroup owns a
// pair, its threads stride over the columns. Runs after teacher_tile.wgsl and student_tile.wgsl of the same tile. The contract is in
// mod.rs.

alias Sum = f32;

const FIRST = 1u;  // no tile before this one: the sum is 0
const LAST = 2u;   // no tile after it

struct Params { pairs: u32, cols: u32, flags: u32, scale: f32 }  // scale: 1/τ

@group(0) @binding(0) var<storage, read_write> s: array<f32>;             // [Ns, cols]
@group(0) @binding(1) var<storage, read_write> e: array<f32>;             // [Nt, cols] exp(y - M)
@group(0) @binding(2) var<storage, read_write> teacher: array<vec4f>;     // [Nt] M, Σ exp(y - M), Σ exp(y - M)·y, factor of older sums
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;           // [Ns], read after the last tile
@group(0) @binding(4) var<storage, read_write> pair_student: array<u32>;  // [pairs]
@group(0) @binding(5) var<storage, read_write> pair_teacher: array<u32>;  // [pairs]
@group(0) @binding(6) var<storage, read_write> pair_weight: array<f32>;   // [pairs]
@group(0) @binding(7) var<storage, read_write> sums: array<f32>;          // [pairs]
@group(0) @binding(8) var<uniform>             p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let pair = wg.y * grid.x + wg.x;
    if pair >= p.pairs { return; }
    let i = pair_student[pair];
    let j = pair_teacher[pair];
    let weight = pair_weight[pair];

    // Most pairs of mixup weigh nothing.
    let cols = select(p.cols, 0u, weight == 0.0);
    var sum = 0.0;
    for (var c = tid; c < cols; c += WG) { sum += e[j * p.cols + c] * s[i * p.cols + c]; }
    let over_tile = sum_over_workgroup(tid, sum);
    if tid == 0u {
        let row = teacher[j];
        var total = over_tile;
        if (p.flags & FIRST) == 0u { total += sums[pair] * row.w; }
        if (p.flags & LAST) != 0u { total = weight * (lse[i] - total / row.y * p.scale); }
        sums[pair] = total;
    }
}
