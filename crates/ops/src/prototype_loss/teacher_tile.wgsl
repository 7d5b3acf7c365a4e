// A tile of teacher logits t becomes exp(y - M), with y = (t - center)/T and M the row's maximum so far, and the row's state takes it in.
// A workgroup owns a row, its threads stride over the columns. The contract is in mod.rs, the recurrence in
// docs/derivations/prototype-loss.md.

alias Sum = vec2f;

const FIRST = 1u;  // no tile before this one: the state holds nothing yet
const LAST = 2u;   // no tile after it: log-sum-exp and entropy are complete

struct Params { rows: u32, cols: u32, flags: u32, scale: f32 }

@group(0) @binding(0) var<storage, read_write> t: array<f32>;            // [rows, cols]
@group(0) @binding(1) var<storage, read_write> center: array<f32>;       // [cols]
@group(0) @binding(2) var<storage, read_write> temperature: array<f32>;  // [1]
@group(0) @binding(3) var<storage, read_write> state: array<vec4f>;      // [rows] M, Σ exp(y - M), Σ exp(y - M)·y, factor of older sums
@group(0) @binding(4) var<storage, read_write> lse: array<f32>;          // [rows]
@group(0) @binding(5) var<storage, read_write> entropy: array<f32>;      // [rows]
@group(0) @binding(6) var<uniform>             p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row = wg.y * grid.x + wg.x;
    if row >= p.rows { return; }
    let base = row * p.cols;
    let inverse = 1.0 / temperature[0];

    var largest = -3.4e38;
    for (var c = tid; c < p.cols; c += WG) {
        let y = (t[base + c] - center[c]) * inverse;
        t[base + c] = y;
        largest = max(largest, y);
    }
    var top = max_over_workgroup(tid, vec2f(largest, 0.0)).x;
    var old = vec4f(top, 0.0, 0.0, 0.0);
    if (p.flags & FIRST) == 0u { old = state[row]; }
    top = max(top, old.x);
    workgroupBarrier();  // everyone has read the maximum and the state before they are overwritten

    var sums = vec2f(0.0);
    for (var c = tid; c < p.cols; c += WG) {
        let y = t[base + c];  // this thread's own
        let e = exp(y - top);
        t[base + c] = e;
        sums += vec2f(e, e * y);
    }
    let over_tile = sum_over_workgroup(tid, sums);
    if tid == 0u {
        let factor = exp(old.x - top);
        let sum = old.y * factor + over_tile.x;
        let energy = old.z * factor + over_tile.y;
        state[row] = vec4f(top, sum, energy, factor);
        if (p.flags & LAST) != 0u {
            let l = top + log(sum);
            lse[row] = l;
            entropy[row] = l - energy / sum;
        }
    }
}
