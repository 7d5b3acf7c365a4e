// Means over the tokens of some images of one segment. A workgroup owns 64 columns of one image; four threads share a column, each takes
// every fourth token, and the first adds the four sums in order. The contract is in mod.rs.

alias Sum = f32;

// x0, y0: where the operands begin in their bindings.
struct Params { images: u32, tokens: u32, cols: u32, x0: u32, y0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [images, tokens, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [images, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let tile = wg.y * grid.x + wg.x;
    let tiles = (p.cols + 63u) / 64u;  // of one image
    let image = tile / tiles;
    if image >= p.images { return; }  // uniform: a whole workgroup leaves together
    let share = tid / 64u;
    let col = tile % tiles * 64u + tid % 64u;
    var sum = 0.0;
    if col < p.cols {
        let base = p.x0 + image * p.tokens * p.cols + col;
        for (var t = share; t < p.tokens; t += 4u) { sum += x[base + t * p.cols]; }
    }
    let total = sum_over_column(tid, sum);
    if share == 0u && col < p.cols { y[p.y0 + image * p.cols + col] = total / f32(p.tokens); }
}
