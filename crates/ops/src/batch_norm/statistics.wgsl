// Batch norm, mean and biased variance of all rows from the moments of their pieces, taken in order: the squared deviations of a piece from
// the mean of all are those from its own mean, and the distance of the two means squared, once for each row. One thread owns one column.

struct Params { rows: u32, cols: u32, pieces: u32, pad: u32 }

@group(0) @binding(0) var<storage, read_write> moments: array<f32>;   // [pieces, 3, cols] rows, mean, squared deviations
@group(0) @binding(1) var<storage, read_write> mean: array<f32>;      // [cols]
@group(0) @binding(2) var<storage, read_write> variance: array<f32>;  // [cols]
@group(0) @binding(3) var<uniform>             p: Params;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let col = (wg.y * grid.x + wg.x) * 64u + tid;
    if col >= p.cols { return; }
    let stride = 3u * p.cols;
    let end = p.pieces * stride;

    var sum = 0.0;
    for (var at = col; at < end; at += stride) { sum += moments[at] * moments[at + p.cols]; }
    let of_all = sum / f32(p.rows);

    var squares = 0.0;
    for (var at = col; at < end; at += stride) {
        let d = moments[at + p.cols] - of_all;
        squares += moments[at + 2u * p.cols] + moments[at] * d * d;
    }
    mean[col] = of_all;
    variance[col] = squares / f32(p.rows);
}
