// Sums over the columns of a row. A workgroup owns ROWS rows; LANES threads share a row, each takes every 64th column. The kernel says what
// a thread adds up, `alias Sum = f32;` or a vector for several sums at once, and its Params have `rows` and `cols`.

const ROWS = 4u;
const LANES = 64u;

var<workgroup> partial: array<Sum, 256>;  // [ROWS, LANES]
var<workgroup> eighths: array<Sum, 32>;   // [ROWS, 8]

// The row of a thread, and where it begins. A row beyond the last has no columns; its threads stay for the barriers.
struct Row { index: u32, begin: u32, cols: u32, exists: bool }

fn row_of(wg: vec3u, grid: vec3u, tid: u32) -> Row {
    let index = (wg.y * grid.x + wg.x) * ROWS + tid / LANES;
    let exists = index < p.rows;
    return Row(index, index * p.cols, select(0u, p.cols, exists), exists);
}

// Sum of `v` over the 64 threads of a row, the same value for each. The next call needs no barrier before it: it writes `partial` when
// all have passed this call's second barrier, and `eighths` when all have passed its own first one.
fn sum_over_row(tid: u32, v: Sum) -> Sum {
    let lane = tid % LANES;
    let eighth = tid / LANES * 8u;
    partial[tid] = v;
    workgroupBarrier();  // all 64 values are there
    if lane < 8u {
        var sum = Sum();
        for (var i = 0u; i < LANES; i += 8u) { sum += partial[tid + i]; }
        eighths[eighth + lane] = sum;
    }
    workgroupBarrier();  // all 8 sums are there
    var sum = Sum();
    for (var i = 0u; i < 8u; i++) { sum += eighths[eighth + i]; }
    return sum;
}
