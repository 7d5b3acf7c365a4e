// SGD and LARS with momentum, and the teacher's moving average. One thread owns one element. The formulas are in optimizer.rs.
// Nothing is changed when the loss is not finite; a frozen parameter still moves the average, and so does a step that is not taken.

struct Params { len: u32, entry: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> w: array<f32>;       // [len] the student's
@group(0) @binding(1) var<storage, read_write> m: array<f32>;       // [len]
@group(0) @binding(2) var<storage, read_write> g: array<f32>;       // [len]
@group(0) @binding(3) var<storage, read_write> t: array<f32>;       // [len] the teacher's
@group(0) @binding(4) var<storage, read_write> report: array<f32>;  // 3: finite; 6: the step is taken; 9 + 4·entry: clip's factor, LARS's factor
@group(0) @binding(5) var<storage, read_write> parameters: array<f32>;   // 0, 1: average's keep and share; 4 + 4·entry: active, decay, momentum, rate
@group(0) @binding(6) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len || report[3] == 0.0 { return; }
    let at = 4u + 4u * p.entry;
    var value = w[i];
    if parameters[at] != 0.0 && report[6] != 0.0 {
        let grad = (g[i] * report[9u + 4u * p.entry] + parameters[at + 1u] * value) * report[10u + 4u * p.entry];
        let m1 = parameters[at + 2u] * m[i] + grad;
        value -= parameters[at + 3u] * m1;
        m[i] = m1;
        w[i] = value;
    }
    t[i] = t[i] * parameters[0] + parameters[1] * value;
}
