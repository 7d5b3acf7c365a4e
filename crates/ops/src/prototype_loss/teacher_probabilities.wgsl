// A tile of teacher logits t becomes q = exp((t - center)/T - lse). A workgroup owns 256 columns of a row, a thread one of them.

const WG = 256u;

struct Params { rows: u32, cols: u32, flags: u32, scale: f32 }

@group(0) @binding(0) var<storage, read_write> t: array<f32>;            // [rows, cols]
@group(0) @binding(1) var<storage, read_write> center: array<f32>;       // [cols]
@group(0) @binding(2) var<storage, read_write> temperature: array<f32>;  // [1]
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;          // [rows]
@group(0) @binding(4) var<uniform>             p: Params;

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let blocks = (p.cols + WG - 1u) / WG;
    let id = wg.y * grid.x + wg.x;
    let row = id / blocks;
    let c = id % blocks * WG + tid;
    if row >= p.rows || c >= p.cols { return; }
    let i = row * p.cols + c;
    t[i] = exp((t[i] - center[c]) * (1.0 / temperature[0]) - lse[row]);
}
