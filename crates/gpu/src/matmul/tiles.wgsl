// Matrix product C = A·B in tiles of 128 x 64, summed in single precision. A workgroup owns one tile of C in one piece of the inner axis;
// its 16 x 16 threads own 8 x 4 elements each. Tiles of A and B pass through workgroup memory, 16 deep, in vectors of four, in the
// precision that f32.wgsl or f16.wgsl gives to `Quad`. Which axis of A and B is contiguous is a parameter: only the order in which threads
// fetch a tile depends on it.

const TILE_M = 128u;
const TILE_N = 64u;
const DEPTH = 16u;
const A_ROW = 33u;      // vectors of a row of A's tile: one more than TILE_M / 4, so that columns fall into different banks
const B_ROW = 17u;

var<workgroup> tile_a: array<Quad, 528>;  // [DEPTH, A_ROW]
var<workgroup> tile_b: array<Quad, 272>;  // [DEPTH, B_ROW]

// Rows row..row + 4 of column k of A; zero where there is none.
fn four_of_a(row: u32, k: u32, k_end: u32) -> vec4f {
    let by_inner = (p.flags & A_BY_INNER) != 0u;
    let at = p.a_first + select(row * p.a_stride + k, k * p.a_stride + row, by_inner);
    let step = select(p.a_stride, 1u, by_inner);
    if k < k_end && row + 3u < p.m { return vec4f(a[at], a[at + step], a[at + 2u * step], a[at + 3u * step]); }
    var v = vec4f();
    if k < k_end && row < p.m { v.x = a[at]; }
    if k < k_end && row + 1u < p.m { v.y = a[at + step]; }
    if k < k_end && row + 2u < p.m { v.z = a[at + 2u * step]; }
    return v;
}

// Columns col..col + 4 of row k of B; zero where there is none.
fn four_of_b(col: u32, k: u32, k_end: u32) -> vec4f {
    let by_outer = (p.flags & B_BY_OUTER) != 0u;
    let at = p.b_first + select(k * p.b_stride + col, col * p.b_stride + k, by_outer);
    let step = select(1u, p.b_stride, by_outer);
    if k < k_end && col + 3u < p.n { return vec4f(b[at], b[at + step], b[at + 2u * step], b[at + 3u * step]); }
    var v = vec4f();
    if k < k_end && col < p.n { v.x = b[at]; }
    if k < k_end && col + 1u < p.n { v.y = b[at + step]; }
    if k < k_end && col + 2u < p.n { v.z = b[at + 2u * step]; }
    return v;
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(num_workgroups) grid: vec3u, @builtin(local_invocation_index) tid: u32) {
    let tiles_n = (p.n + TILE_N - 1u) / TILE_N;
    let id = wg.y * grid.x + wg.x;
    let row0 = id / tiles_n * TILE_M;
    let col0 = id % tiles_n * TILE_N;
    if row0 >= p.m { return; }  // uniform: a whole workgroup leaves together
    let k_begin = wg.z * p.k_piece;
    let k_end = min(p.k, k_begin + p.k_piece);
    let a_by_inner = (p.flags & A_BY_INNER) != 0u;
    let b_by_outer = (p.flags & B_BY_OUTER) != 0u;

    var sum: array<vec4f, 8>;
    for (var k0 = k_begin; k0 < k_end; k0 += DEPTH) {
        // Neighboring threads fetch neighboring addresses.
        for (var e = tid; e < DEPTH * TILE_M / 4u; e += 256u) {
            let k = select(e % DEPTH, e / (TILE_M / 4u), a_by_inner);
            let four = select(e / DEPTH, e % (TILE_M / 4u), a_by_inner);
            tile_a[k * A_ROW + four] = quad(four_of_a(row0 + 4u * four, k0 + k, k_end));
        }
        let k = select(tid / (TILE_N / 4u), tid % DEPTH, b_by_outer);
        let four = select(tid % (TILE_N / 4u), tid / DEPTH, b_by_outer);
        tile_b[k * B_ROW + four] = quad(four_of_b(col0 + 4u * four, k0 + k, k_end));
        workgroupBarrier();  // the tiles are complete
        for (var k = 0u; k < DEPTH; k++) {
            let vb = vec4f(tile_b[k * B_ROW + tid % 16u]);
            let at = k * A_ROW + tid / 16u * 2u;
            let va = vec4f(tile_a[at]);
            let wa = vec4f(tile_a[at + 1u]);
            sum[0] += va.x * vb;
            sum[1] += va.y * vb;
            sum[2] += va.z * vb;
            sum[3] += va.w * vb;
            sum[4] += wa.x * vb;
            sum[5] += wa.y * vb;
            sum[6] += wa.z * vb;
            sum[7] += wa.w * vb;
        }
        workgroupBarrier();  // everyone has read them before they are overwritten
    }

    for (var i = 0u; i < 8u; i++) {
        let row = row0 + tid / 16u * 8u + i;
        for (var j = 0u; j < 4u; j++) {
            let col = col0 + tid % 16u * 4u + j;
            if row < p.m && col < p.n { store(p.c_first + wg.z * p.c_piece + row * p.c_stride + col, col, sum[i][j]); }
        }
    }
}
