// Matrix product C = A·B in 64 x 64 tiles. A workgroup owns one tile of C in one piece of the inner axis; its 16 x 16 threads own
// 4 x 4 elements each. Tiles of A and B pass through workgroup memory, 16 deep. Which axis of A and B is contiguous is a
// parameter: only the order in which threads fetch a tile depends on it. The contract is in matmul.rs.

const TILE = 64u;
const DEPTH = 16u;
const ROW = 68u;        // floats of a tile's row in workgroup memory: 4 more than TILE, so that columns fall into different banks
const A_BY_INNER = 1u;  // A is stored [k, m]
const B_BY_OUTER = 2u;  // B is stored [n, k]
const BIAS = 4u;

struct Params { m: u32, n: u32, k: u32, k_piece: u32, flags: u32, c_first: u32, pad0: u32, pad1: u32 }

@group(0) @binding(0) var<storage, read_write> a: array<f32>;
@group(0) @binding(1) var<storage, read_write> b: array<f32>;
@group(0) @binding(2) var<storage, read_write> bias: array<f32>;  // [n]; not read without BIAS
@group(0) @binding(3) var<storage, read_write> c: array<f32>;     // [pieces, m, n]
@group(0) @binding(4) var<uniform>             p: Params;

var<workgroup> tile_a: array<f32, 1088>;  // [DEPTH, ROW]
var<workgroup> tile_b: array<f32, 1088>;  // [DEPTH, ROW]

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) tid: u32) {
    let row0 = wg.y * TILE;
    let col0 = wg.x * TILE;
    let k_begin = wg.z * p.k_piece;
    let k_end = min(p.k, k_begin + p.k_piece);
    let my_row = (tid / 16u) * 4u;
    let my_col = (tid % 16u) * 4u;

    var sum: array<vec4f, 4>;
    for (var k0 = k_begin; k0 < k_end; k0 += DEPTH) {
        for (var i = 0u; i < 4u; i++) {
            let e = tid + i * 256u;
            // Neighbouring threads fetch neighbouring addresses.
            let by_inner = (p.flags & A_BY_INNER) != 0u;
            let m_in = select(e / DEPTH, e % TILE, by_inner);
            let ka_in = select(e % DEPTH, e / TILE, by_inner);
            let row = row0 + m_in;
            let ka = k0 + ka_in;
            var va = 0.0;
            if row < p.m && ka < k_end { va = a[select(row * p.k + ka, ka * p.m + row, by_inner)]; }
            tile_a[ka_in * ROW + m_in] = va;

            let by_outer = (p.flags & B_BY_OUTER) != 0u;
            let n_in = select(e % TILE, e / DEPTH, by_outer);
            let kb_in = select(e / TILE, e % DEPTH, by_outer);
            let col = col0 + n_in;
            let kb = k0 + kb_in;
            var vb = 0.0;
            if col < p.n && kb < k_end { vb = b[select(kb * p.n + col, col * p.k + kb, by_outer)]; }
            tile_b[kb_in * ROW + n_in] = vb;
        }
        workgroupBarrier();  // the tiles are complete
        for (var k = 0u; k < DEPTH; k++) {
            let at_b = k * ROW + my_col;
            let vb = vec4f(tile_b[at_b], tile_b[at_b + 1u], tile_b[at_b + 2u], tile_b[at_b + 3u]);
            let at_a = k * ROW + my_row;
            sum[0] += tile_a[at_a] * vb;
            sum[1] += tile_a[at_a + 1u] * vb;
            sum[2] += tile_a[at_a + 2u] * vb;
            sum[3] += tile_a[at_a + 3u] * vb;
        }
        workgroupBarrier();  // everyone has read them before they are overwritten
    }

    for (var i = 0u; i < 4u; i++) {
        let row = row0 + my_row + i;
        for (var j = 0u; j < 4u; j++) {
            let col = col0 + my_col + j;
            if row < p.m && col < p.n {
                var v = sum[i][j];
                if (p.flags & BIAS) != 0u { v += bias[col]; }
                c[((p.c_first + wg.z) * p.m + row) * p.n + col] = v;
            }
        }
    }
}
