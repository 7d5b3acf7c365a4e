// Sums over the rows of a column. A workgroup owns 64 columns; four threads share a column, each takes every fourth row. The kernel says
// what a thread adds up, `alias Sum = f32;` or a vector for several sums at once.

var<workgroup> partial: array<Sum, 256>;  // [4, 64]

// Sum of `v` over the four threads of a column, in order, the same value for each. The next call needs a barrier before it.
fn sum_over_column(tid: u32, v: Sum) -> Sum {
    let lane = tid % 64u;
    partial[tid] = v;
    workgroupBarrier();  // all four values are there
    return partial[lane] + partial[64u + lane] + partial[128u + lane] + partial[192u + lane];
}
