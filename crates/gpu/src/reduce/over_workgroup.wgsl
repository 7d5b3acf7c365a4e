// Sums and maxima over the WG threads of a workgroup, in pairs. The kernel says what a thread holds, `alias Sum = f32;` or a vector for
// several at once.

const WG = 256u;

var<workgroup> partial: array<Sum, WG>;

// Sum of `v` over all threads, the same value for each. The next call needs a barrier before it.
fn sum_over_workgroup(tid: u32, v: Sum) -> Sum {
    partial[tid] = v;
    workgroupBarrier();  // every thread's value is there
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if tid < width { partial[tid] += partial[tid + width]; }
        workgroupBarrier();  // this width is done before half of it is read
    }
    return partial[0];
}

// Maximum of `v` over all threads, likewise.
fn max_over_workgroup(tid: u32, v: Sum) -> Sum {
    partial[tid] = v;
    workgroupBarrier();  // every thread's value is there
    for (var width = WG / 2u; width > 0u; width /= 2u) {
        if tid < width { partial[tid] = max(partial[tid], partial[tid + width]); }
        workgroupBarrier();  // this width is done before half of it is read
    }
    return partial[0];
}
