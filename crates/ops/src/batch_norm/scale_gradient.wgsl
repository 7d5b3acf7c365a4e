// Batch norm, sums over a piece of the rows: dgamma[first + piece, col] = Σ dy·x̂ and dbeta[first + piece, col] = Σ dy. A workgroup owns 64
// columns of one piece; four threads share a column, each takes every fourth row, and the first adds the four sums in order.

alias Sum = vec2f;

// x0, dy0: where the rows begin in their bindings.
struct Params { rows: u32, cols: u32, piece: u32, first: u32, eps: f32, x0: u32, dy0: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;         // [rows, cols]
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;      // [cols]
@group(0) @binding(2) var<storage, read_write> variance: array<f32>;  // [cols]
@group(0) @binding(3) var<storage, read_write> dy: array<f32>;        // [rows, cols]
@group(0) @binding(4) var<storage, read_write> dgamma: array<f32>;    // [pieces, cols]
@group(0) @binding(5) var<storage, read_write> dbeta: array<f32>;     // [pieces, cols]
@group(0) @binding(6) var<uniform>             p: Params;

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) tid: u32) {
    let share = tid / 64u;
    let col = wg.x * 64u + tid % 64u;
    let end = min(p.rows, (wg.y + 1u) * p.piece);
    var sums = vec2f();
    if col < p.cols {
        let center = mean[col];
        let rstd = inverseSqrt(variance[col] + p.eps);
        for (var row = wg.y * p.piece + share; row < end; row += 4u) {
            let d = dy[p.dy0 + row * p.cols + col];
            sums += vec2f(d * ((x[p.x0 + row * p.cols + col] - center) * rstd), d);
        }
    }
    let total = sum_over_column(tid, sums);
    if share == 0u && col < p.cols {
        dgamma[(p.first + wg.y) * p.cols + col] = total.x;
        dbeta[(p.first + wg.y) * p.cols + col] = total.y;
    }
}
