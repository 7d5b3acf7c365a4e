// y = keep·y + share·x where the loss is finite: centers, running statistics, and the teacher's copy of what is not trained. One thread owns
// one element. With `teacher` set, keep and share are those of the teacher's average.

struct Params { len: u32, teacher: u32, keep: f32, share: f32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;       // [len]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;       // [len]
@group(0) @binding(2) var<storage, read_write> report: array<f32>;  // 3: finite
@group(0) @binding(3) var<storage, read_write> parameters: array<f32>;   // 0, 1: the teacher's keep and share
@group(0) @binding(4) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.len || report[3] == 0.0 { return; }
    let keep = select(p.keep, parameters[0], p.teacher == 1u);
    let share = select(p.share, parameters[1], p.teacher == 1u);
    y[i] = y[i] * keep + x[i] * share;
}
