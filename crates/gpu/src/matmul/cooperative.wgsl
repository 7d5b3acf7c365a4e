// Matrix product C = A·B in tiles of 128 x 128 on matrix units: operands are rounded to half precision on their way into workgroup memory,
// sums are single precision. A workgroup owns one tile of C in one piece of the inner axis; each of its eight subgroups of 32 threads owns
// 64 x 32 of it, as 4 x 2 blocks of 16 x 16. Tiles lie in workgroup memory as their operands do in global memory, so threads copy along
// rows; which of the two loads a block takes depends on that.

enable f16;
enable wgpu_cooperative_matrix;

const TILE = 128u;
const DEPTH = 32u;
const NARROW = 40u;     // elements from row to row of a tile stored [TILE, DEPTH]: a multiple of 16 bytes, and rows in different banks
const WIDE = 136u;      // likewise of a tile stored [DEPTH, TILE]

var<workgroup> tile_a: array<f16, 5120>;   // [TILE, NARROW] or [DEPTH, WIDE]
var<workgroup> tile_b: array<f16, 5120>;   // likewise
var<workgroup> blocks: array<f32, 2048>;   // [8, 16, 16] a block of C of each subgroup

// Too large for half precision becomes infinite on every adapter: the step's loss scaling looks for that.
fn half(v: f32) -> f16 {
    return f16(select(v, v * 3e38, abs(v) > 65504.0));
}

// Writes block (i, j) of every subgroup's part of C.
fn write(tid: u32, row0: u32, col0: u32, first: u32, i: u32, j: u32) {
    workgroupBarrier();  // the blocks are complete
    for (var e = tid; e < 2048u; e += 256u) {
        let owner = e / 256u;
        let row = row0 + owner / 4u * 64u + i * 16u + e / 16u % 16u;
        let col = col0 + owner % 4u * 32u + j * 16u + e % 16u;
        if row < p.m && col < p.n { store(first + row * p.c_stride + col, col, blocks[e]); }
    }
    workgroupBarrier();  // everyone has read them before the next blocks
}

@compute @workgroup_size(256)
fn main(
    @builtin(workgroup_id) wg: vec3u,
    @builtin(num_workgroups) grid: vec3u,
    @builtin(local_invocation_index) tid: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    let tiles_n = (p.n + TILE - 1u) / TILE;
    let id = wg.y * grid.x + wg.x;
    let row0 = id / tiles_n * TILE;
    let col0 = id % tiles_n * TILE;
    if row0 >= p.m { return; }  // uniform: a whole workgroup leaves together
    let k_begin = wg.z * p.k_piece;
    let k_end = min(p.k, k_begin + p.k_piece);
    let a_by_inner = (p.flags & A_BY_INNER) != 0u;
    let b_by_outer = (p.flags & B_BY_OUTER) != 0u;
    let my_row = subgroup / 4u * 64u;
    let my_col = subgroup % 4u * 32u;

    var c00 = coop_mat16x16<f32, C>();
    var c01 = coop_mat16x16<f32, C>();
    var c10 = coop_mat16x16<f32, C>();
    var c11 = coop_mat16x16<f32, C>();
    var c20 = coop_mat16x16<f32, C>();
    var c21 = coop_mat16x16<f32, C>();
    var c30 = coop_mat16x16<f32, C>();
    var c31 = coop_mat16x16<f32, C>();
    for (var k0 = k_begin; k0 < k_end; k0 += DEPTH) {
        for (var e = tid; e < TILE * DEPTH; e += 256u) {
            let m_in = select(e / DEPTH, e % TILE, a_by_inner);
            let ka_in = select(e % DEPTH, e / TILE, a_by_inner);
            let row = row0 + m_in;
            let ka = k0 + ka_in;
            var va = 0.0;
            if row < p.m && ka < k_end { va = a[p.a_first + select(row * p.a_stride + ka, ka * p.a_stride + row, a_by_inner)]; }
            tile_a[select(m_in * NARROW + ka_in, ka_in * WIDE + m_in, a_by_inner)] = half(va);

            let n_in = select(e % TILE, e / DEPTH, b_by_outer);
            let kb_in = select(e / TILE, e % DEPTH, b_by_outer);
            let col = col0 + n_in;
            let kb = k0 + kb_in;
            var vb = 0.0;
            if col < p.n && kb < k_end { vb = b[p.b_first + select(kb * p.b_stride + col, col * p.b_stride + kb, b_by_outer)]; }
            tile_b[select(kb_in * WIDE + n_in, n_in * NARROW + kb_in, b_by_outer)] = half(vb);
        }
        workgroupBarrier();  // the tiles are complete
        for (var k = 0u; k < DEPTH; k += 16u) {
            // The suffix T is for blocks whose rows are contiguous.
            var a0: coop_mat16x16<f16, A>;
            var a1: coop_mat16x16<f16, A>;
            var a2: coop_mat16x16<f16, A>;
            var a3: coop_mat16x16<f16, A>;
            if a_by_inner {
                let at = k * WIDE + my_row;
                a0 = coopLoad<coop_mat16x16<f16, A>>(&tile_a[at], WIDE);
                a1 = coopLoad<coop_mat16x16<f16, A>>(&tile_a[at + 16u], WIDE);
                a2 = coopLoad<coop_mat16x16<f16, A>>(&tile_a[at + 32u], WIDE);
                a3 = coopLoad<coop_mat16x16<f16, A>>(&tile_a[at + 48u], WIDE);
            } else {
                let at = my_row * NARROW + k;
                a0 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[at], NARROW);
                a1 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[at + 16u * NARROW], NARROW);
                a2 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[at + 32u * NARROW], NARROW);
                a3 = coopLoadT<coop_mat16x16<f16, A>>(&tile_a[at + 48u * NARROW], NARROW);
            }
            var b0: coop_mat16x16<f16, B>;
            var b1: coop_mat16x16<f16, B>;
            if b_by_outer {
                let at = my_col * NARROW + k;
                b0 = coopLoad<coop_mat16x16<f16, B>>(&tile_b[at], NARROW);
                b1 = coopLoad<coop_mat16x16<f16, B>>(&tile_b[at + 16u * NARROW], NARROW);
            } else {
                let at = k * WIDE + my_col;
                b0 = coopLoadT<coop_mat16x16<f16, B>>(&tile_b[at], WIDE);
                b1 = coopLoadT<coop_mat16x16<f16, B>>(&tile_b[at + 16u], WIDE);
            }
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
            c20 = coopMultiplyAdd(a2, b0, c20);
            c21 = coopMultiplyAdd(a2, b1, c21);
            c30 = coopMultiplyAdd(a3, b0, c30);
            c31 = coopMultiplyAdd(a3, b1, c31);
        }
        workgroupBarrier();  // everyone has read them before they are overwritten
    }

    let first = p.c_first + wg.z * p.c_piece;
    let mine = subgroup * 256u;
    coopStoreT(c00, &blocks[mine], 16u);
    write(tid, row0, col0, first, 0u, 0u);
    coopStoreT(c01, &blocks[mine], 16u);
    write(tid, row0, col0, first, 0u, 1u);
    coopStoreT(c10, &blocks[mine], 16u);
    write(tid, row0, col0, first, 1u, 0u);
    coopStoreT(c11, &blocks[mine], 16u);
    write(tid, row0, col0, first, 1u, 1u);
    coopStoreT(c20, &blocks[mine], 16u);
    write(tid, row0, col0, first, 2u, 0u);
    coopStoreT(c21, &blocks[mine], 16u);
    write(tid, row0, col0, first, 2u, 1u);
    coopStoreT(c30, &blocks[mine], 16u);
    write(tid, row0, col0, first, 3u, 0u);
    coopStoreT(c31, &blocks[mine], 16u);
    write(tid, row0, col0, first, 3u, 1u);
}
