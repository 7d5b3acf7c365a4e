// Sums of columns over a piece of the rows: y[first + piece, col] = Σ x[row, col]. A workgroup owns 64 columns of one piece; four threads
// share a column, each takes every fourth row, and the first adds the four sums in order.

alias Sum = f32;

struct Params { rows: u32, cols: u32, piece: u32, first: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;  // [rows, cols]
@group(0) @binding(1) var<storage, read_write> y: array<f32>;  // [pieces, cols]
@group(0) @binding(2) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) tid: u32) {
    let share = tid / 64u;
    let col = wg.x * 64u + tid % 64u;
    let end = min(p.rows, (wg.y + 1u) * p.piece);
    var sum = 0.0;
    if col < p.cols {
        for (var row = wg.y * p.piece + share; row < end; row += 4u) { sum += x[row * p.cols + col]; }
    }
    let total = sum_over_column(tid, sum);
    if share == 0u && col < p.cols { y[(p.first + wg.y) * p.cols + col] = total; }
}
