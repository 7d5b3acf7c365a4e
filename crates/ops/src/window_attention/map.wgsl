// Attention inside windows, its probabilities to look at. A workgroup owns one query row of one window and head; its threads stride over
// the keys. The contract is in mod.rs.

@group(0) @binding(3) var<storage, read_write> y: array<f32>;         // [windows, H, T, T]
@group(0) @binding(4) var<uniform>             p: Params;

var<workgroup> of_threads: array<f32, 64>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let area = p.window * p.window;
    let span = p.span;
    let g = wg.y * grid.x + wg.x;
    if g >= p.units * p.heads * area { return; }  // uniform: a whole workgroup leaves together
    let i = g % area;
    let head = g / area % p.heads;
    let at = place(g / area / p.heads);
    let column = head * p.head_width;
    let query = token(at, i);
    let my_spot = spot(at, i);
    let my_slot = (my_spot & 0xffffffu) + (span / 2u) * (span + 1u);
    let row = p.y_first + g * area;

    // A thread writes its scores where the probabilities will be, and reads no other thread's.
    var top = NEVER;
    for (var j = tid; j < area; j += WG) {
        let key = token(at, j);
        let about = spot(at, j);
        var s = 0.0;
        for (var c = 0u; c < p.head_width; c++) { s += value(query, column + c) * value(key, p.channels + column + c); }
        s = p.scale * s + table[(my_slot - (about & 0xffffffu)) * p.heads + head];
        if (about >> 24u) != (my_spot >> 24u) { s += MASK; }
        y[row + j] = s;
        top = max(top, s);
    }
    of_threads[tid] = top;
    workgroupBarrier();  // every thread's highest is there
    for (var n = 0u; n < WG; n++) { top = max(top, of_threads[n]); }
    workgroupBarrier();  // everyone has read them before the sums overwrite them

    var sum = 0.0;
    for (var j = tid; j < area; j += WG) {
        let e = exp(y[row + j] - top);
        y[row + j] = e;
        sum += e;
    }
    of_threads[tid] = sum;
    workgroupBarrier();  // every thread's sum is there
    sum = 0.0;
    for (var n = 0u; n < WG; n++) { sum += of_threads[n]; }
    for (var j = tid; j < area; j += WG) { y[row + j] = y[row + j] / sum; }
}
