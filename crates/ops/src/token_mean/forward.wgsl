// Means over the tokens of some images of one segment. A workgroup owns 64 columns of one image; four threads share a column, each takes
// every fourth token, and the first adds the four sums in order. The contract is in mod.rs.

// x0, y0: where the operands begin in their bindings.
struct Params { images: u32, tokens: u32, cols: u32, x0: u32, y0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [images, tokens, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [images, cols]
@group(0) @binding(2) var<uniform>             p: Params;

var<workgroup> partial: array<f32, 256>;  // [4, 64]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let tile = wg.y * grid.x + wg.x;
    let tiles = (p.cols + 63u) / 64u;  // of one image
    let image = tile / tiles;
    if image >= p.images { return; }  // uniform: a whole workgroup leaves together
    let lane = tid % 64u;
    let share = tid / 64u;
    let col = tile % tiles * 64u + lane;
    var sum = 0.0;
    if col < p.cols {
        let base = p.x0 + image * p.tokens * p.cols + col;
        for (var t = share; t < p.tokens; t += 4u) { sum += x[base + t * p.cols]; }
    }
    partial[tid] = sum;
    workgroupBarrier();  // all four shares are there
    if share == 0u && col < p.cols {
        let total = partial[lane] + partial[64u + lane] + partial[128u + lane] + partial[192u + lane];
        y[p.y0 + image * p.cols + col] = total / f32(p.tokens);
    }
}
