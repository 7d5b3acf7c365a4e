// A row's running maximum and sum of exponentials of s/τ take in a tile of student logits s. A workgroup owns a row, its threads stride
// over the columns. The contract is in mod.rs.

alias Sum = f32;

const FIRST = 1u;  // no tile before this one: the state holds nothing yet
const LAST = 2u;   // no tile after it: the log-sum-exp is complete

struct Params { rows: u32, cols: u32, flags: u32, scale: f32 }  // scale: 1/τ

@group(0) @binding(0) var<storage, read_write> s: array<f32>;        // [rows, cols]
@group(0) @binding(1) var<storage, read_write> state: array<vec2f>;  // [rows] M, Σ exp(s/τ - M)
@group(0) @binding(2) var<storage, read_write> lse: array<f32>;      // [rows]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = wg.y * grid.x + wg.x;
    if row >= p.rows { return; }
    let base = row * p.cols;

    var largest = -3.4e38;
    for (var c = tid; c < p.cols; c += WG) { largest = max(largest, s[base + c] * p.scale); }
    var top = max_over_workgroup(tid, largest);
    var old = vec2f(top, 0.0);
    if (p.flags & FIRST) == 0u { old = state[row]; }
    top = max(top, old.x);
    workgroupBarrier();  // everyone has read the maximum and the state before they are overwritten

    var sum = 0.0;
    for (var c = tid; c < p.cols; c += WG) { sum += exp(s[base + c] * p.scale - top); }
    let over_tile = sum_over_workgroup(tid, sum);
    if tid == 0u {
        let total = old.y * exp(old.x - top) + over_tile;
        state[row] = vec2f(top, total);
        if (p.flags & LAST) != 0u { lse[row] = top + log(total); }
    }
}
