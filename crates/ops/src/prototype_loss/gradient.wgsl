// A tile of student logits s becomes G = dloss·(w_i·softmax(s/τ) - Σ_p w_p·q_j)/τ, w_i the sum of row i's weights. A workgroup owns 256
// columns of a row, a thread one of them; each adds up the row's pairs in order. The contract is in mod.rs.

const WG = 256u;

struct Params { rows: u32, cols: u32, flags: u32, scale: f32 }  // scale: 1/τ

@group(0) @binding(0) var<storage, read_write> s: array<f32>;             // [rows, cols]; G afterwards
@group(0) @binding(1) var<storage, read_write> q: array<f32>;             // [Nt, cols]
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;           // [rows]
@group(0) @binding(3) var<storage, read_write> offsets: array<u32>;       // [rows + 1] a row's first pair
@group(0) @binding(4) var<storage, read_write> pair_teacher: array<u32>;  // [pairs]
@group(0) @binding(5) var<storage, read_write> pair_weight: array<f32>;   // [pairs]
@group(0) @binding(6) var<storage, read_write> dloss: array<f32>;         // [1]
@group(0) @binding(7) var<uniform>             p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let blocks = (p.cols + WG - 1u) / WG;
    let id = wg.y * grid.x + wg.x;
    let row = id / blocks;
    let c = id % blocks * WG + tid;
    if row >= p.rows || c >= p.cols { return; }
    var weights = 0.0;
    var target_sum = 0.0;
    let end = offsets[row + 1u];
    for (var pair = offsets[row]; pair < end; pair++) {
        let weight = pair_weight[pair];
        // Most pairs of mixup weigh nothing.
        if weight != 0.0 {
            weights += weight;
            target_sum += weight * q[pair_teacher[pair] * p.cols + c];
        }
    }
    let i = row * p.cols + c;
    s[i] = dloss[0] * p.scale * (weights * exp(s[i] * p.scale - lse[row]) - target_sum);
}
