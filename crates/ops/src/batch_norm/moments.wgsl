// Batch norm, moments of a piece of the rows: how many they are, their mean, and the sum of squared deviations from that mean. A workgroup
// owns 64 columns of one piece; four threads share a column, each takes every fourth row, and all four sums are added in order.
// statistics.wgsl joins the pieces.

alias Sum = f32;

// x0: where the rows begin in the binding.
struct Params { rows: u32, cols: u32, piece: u32, first: u32, x0: u32, pad0: u32, pad1: u32, pad2: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;        // [rows, cols]
@group(0) @binding(1) var<storage, read_write> moments: array<f32>;  // [pieces, 3, cols] rows, mean, squared deviations
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) tid: u32) {
    let share = tid / 64u;
    let col = wg.x * 64u + tid % 64u;
    let begin = wg.y * p.piece;
    // A column beyond the last has no rows; its threads stay for the barriers.
    let end = select(begin, min(p.rows, begin + p.piece), col < p.cols);
    let count = f32(end - begin);

    var sum = 0.0;
    for (var row = begin + share; row < end; row += 4u) { sum += x[p.x0 + row * p.cols + col]; }
    let mean = sum_over_column(tid, sum) / max(count, 1.0);
    workgroupBarrier();  // everyone has read the sums before the squares overwrite them

    var squares = 0.0;
    for (var row = begin + share; row < end; row += 4u) { let d = x[p.x0 + row * p.cols + col] - mean; squares += d * d; }
    let deviations = sum_over_column(tid, squares);
    if share == 0u && col < p.cols {
        let at = (p.first + wg.y) * 3u * p.cols + col;
        moments[at] = count;
        moments[at + p.cols] = mean;
        moments[at + 2u * p.cols] = deviations;
    }
}
