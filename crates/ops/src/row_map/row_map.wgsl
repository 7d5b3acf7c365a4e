// y (+)= map·x for one table. One thread owns one element of y. The contract is in mod.rs.

// entries: where they begin in the map, behind the first entry of every row.
struct Params { rows: u32, width: u32, x_inner: u32, y_inner: u32, entries: u32, accumulate: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> x: array<f32>;    // [rows of the table, width], or with x_inner in blocks
@group(0) @binding(1) var<storage, read_write> map: array<u32>;  // [rows + 1], then (row of x, bits of the weight) for every entry
@group(0) @binding(2) var<storage, read_write> y: array<f32>;    // [rows, width], or with y_inner in blocks
@group(0) @binding(3) var<uniform>             p: Params;

fn place(row: u32, inner: u32) -> u32 {
    return row / inner * inner * p.width + row % inner;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let i = (wg.y * grid.x + wg.x) * 256u + tid;
    if i >= p.rows * p.width { return; }
    let row = i / p.width;
    let c = i % p.width;
    var sum = 0.0;
    for (var e = map[row]; e < map[row + 1u]; e++) {
        let at = p.entries + 2u * e;
        sum += bitcast<f32>(map[at + 1u]) * x[place(map[at], p.x_inner) + c * p.x_inner];
    }
    let to = place(row, p.y_inner) + c * p.y_inner;
    if p.accumulate != 0u { sum += y[to]; }
    y[to] = sum;
}
